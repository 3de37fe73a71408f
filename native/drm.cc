#include "init.h"

namespace p2pdma {

void InitDrm(Napi::Env, Napi::Object) {}

}  // namespace p2pdma
