#include "init.h"

namespace p2pdma {

void InitDmaBuf(Napi::Env, Napi::Object) {}

}  // namespace p2pdma
