#pragma once

#include <napi.h>

namespace p2pdma {

void InitSoftware(Napi::Env env, Napi::Object exports);

}  // namespace p2pdma
