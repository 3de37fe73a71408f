#include "init.h"

namespace p2pdma {

void InitDmaHeap(Napi::Env, Napi::Object) {}

}  // namespace p2pdma
