#include "init.h"

namespace p2pdma {

void InitSyncFile(Napi::Env, Napi::Object) {}

}  // namespace p2pdma
