#include "software/software.h"

namespace p2pdma {

void InitSoftware(Napi::Env, Napi::Object) {}

}  // namespace p2pdma
