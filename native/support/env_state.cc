#include "support/env_state.h"

namespace p2pdma {

EnvState& EnvState::Of(Napi::Env env) {
  EnvState* state = env.GetInstanceData<EnvState>();
  if (state == nullptr) {
    state = new EnvState();
    env.SetInstanceData<EnvState>(state);
  }
  return *state;
}

}  // namespace p2pdma
