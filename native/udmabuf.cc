#include "init.h"

namespace p2pdma {

void InitUdmabuf(Napi::Env, Napi::Object) {}

}  // namespace p2pdma
