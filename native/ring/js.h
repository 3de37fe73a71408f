#pragma once

#include <napi.h>

namespace p2pdma {

void InitRing(Napi::Env env, Napi::Object exports);

}  // namespace p2pdma
