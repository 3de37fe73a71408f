#include "init.h"

namespace p2pdma {

void InitPoll(Napi::Env, Napi::Object) {}

}  // namespace p2pdma
