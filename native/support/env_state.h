// What one environment (the main thread, or one worker) has of its own.
#pragma once

#include <napi.h>

namespace p2pdma {

struct EnvState {
  // Constructors of the classes that native code makes instances of. They are
  // dropped with the environment; instances are finalised before them.
  Napi::FunctionReference fd_constructor;
  Napi::FunctionReference mapping_constructor;
  // Of the second addon, native/verbs, whose state is its own.
  Napi::FunctionReference handle_constructor;

  static EnvState& Of(Napi::Env env);
};

}  // namespace p2pdma
