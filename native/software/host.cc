#include "host.h"

#include <system_error>
#include <utility>

#include "../support/error.h"
#include "../support/guard.h"

namespace p2pdma::software {

HostChannel::HostChannel(std::shared_ptr<Host> host, uint32_t depth, Napi::Object owner,
                         uint32_t* bell)
    : doorbell(bell),
      host_(std::move(host)),
      owner_(Napi::Weak(owner)),
      core_(host_->engine().OpenChannel(depth)) {}

HostChannel::~HostChannel() { Close(); }

void HostChannel::Close() {
  if (core_ == nullptr) return;
  stop_pending = false;
  if (!host_->closed()) host_->engine().CloseChannel(core_);
  core_ = nullptr;
  host_->Remove(*this);
  UpdateHold();
  owner_.Reset();
}

void HostChannel::SetHold(bool held) {
  held_ = held;
  if (held) {
    owner_.Ref();
    host_->Ref();
  } else {
    if (!owner_.IsEmpty()) owner_.Unref();
    host_->Unref();
  }
}

std::shared_ptr<Host> Host::Open(Napi::Env env, Napi::Function dispatch) {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) throw Napi::Error::New(env);
  const std::shared_ptr<Host> host(new Host(env));
  auto async = std::make_unique<Async>();
  async->host = host.get();
  async->handle.data = async.get();
  const int error = uv_async_init(loop, &async->handle, [](uv_async_t* handle) {
    Host* const target = static_cast<Async*>(handle->data)->host;
    if (target == nullptr) return;
    const Napi::Env env = target->env_;
    try {
      target->OnEvents();
    } catch (...) {
      const Napi::HandleScope scope(env);
      ReportHandled(env);
    }
  });
  if (error != 0) throw SystemError(env, -error, "uv_async_init");
  uv_unref(reinterpret_cast<uv_handle_t*>(&async->handle));
  host->async_ = async.release();
  const napi_status hooked = napi_add_async_cleanup_hook(
      env,
      [](napi_async_cleanup_hook_handle, void* data) {
        Host* const target = static_cast<Async*>(data)->host;
        if (target != nullptr) target->Shutdown();
      },
      host->async_, &host->async_->hook);
  if (hooked != napi_ok) throw Napi::Error::New(env);
  host->dispatch_ = Napi::Persistent(dispatch);
  try {
    host->engine_ =
        std::make_unique<Engine>([handle = &host->async_->handle] { uv_async_send(handle); });
  } catch (const std::system_error& failure) {
    host->Shutdown();
    throw SystemError(env, failure.code().value(), "pthread_create");
  }
  return host;
}

void Host::Add(const std::shared_ptr<HostChannel>& channel) {
  channels_.push_back(channel.get());
  channel->place_ = channels_.size() - 1;
}

void Host::Remove(const HostChannel& channel) {
  const size_t place = channel.place_;
  if (place >= channels_.size() || channels_[place] != &channel) return;
  channels_[place] = nullptr;
  // While they are looked at, none moves.
  if (!is_dispatching_) Fill(place);
}

// The last one goes to where there is none any more.
void Host::Fill(size_t place) {
  channels_[place] = channels_.back();
  if (channels_[place] != nullptr) channels_[place]->place_ = place;
  channels_.pop_back();
}

void Host::Shutdown() {
  if (async_ == nullptr) return;
  // The thread first: it uses the handle.
  if (engine_ != nullptr) engine_->Close();
  Async* const async = std::exchange(async_, nullptr);
  async->host = nullptr;
  for (size_t i = channels_.size(); i-- > 0;) {
    if (i < channels_.size() && channels_[i] != nullptr) channels_[i]->Close();
  }
  dispatch_.Reset();
  uv_close(reinterpret_cast<uv_handle_t*>(&async->handle), [](uv_handle_t* handle) {
    const std::unique_ptr<Async> closed(static_cast<Async*>(handle->data));
    if (closed->hook != nullptr) napi_remove_async_cleanup_hook(closed->hook);
  });
}

void Host::Ref() {
  if (refs_++ == 0 && async_ != nullptr) uv_ref(reinterpret_cast<uv_handle_t*>(&async_->handle));
}

void Host::Unref() {
  if (--refs_ == 0 && async_ != nullptr) {
    uv_unref(reinterpret_cast<uv_handle_t*>(&async_->handle));
  }
}

void Host::OnEvents() {
  const auto self = shared_from_this();
  const Napi::HandleScope scope(env_);
  const Dispatching dispatching(*this);
  // What is called may open and close.
  for (size_t i = 0, count = channels_.size(); i < count; ++i) {
    if (channels_[i] == nullptr) continue;
    const auto channel = channels_[i]->shared_from_this();
    uint32_t events = channel->core().TakeEvents();
    // The answer to a stop that was overtaken by a force and a restart is none.
    if (channel->core().state() != State::kStopped) events &= ~Channel::kQuiet;
    if (events != 0) Dispatch(*channel, events);
  }
}

Host::Dispatching::~Dispatching() {
  host_.is_dispatching_ = false;
  auto& channels = host_.channels_;
  for (size_t i = channels.size(); i-- > 0;) {
    if (channels[i] == nullptr) host_.Fill(i);
  }
}

void Host::Dispatch(HostChannel& channel, uint32_t events) {
  const Napi::HandleScope scope(env_);
  const Napi::Object owner = channel.owner_.Value();
  if ((events & Channel::kQuiet) != 0) channel.stop_pending = false;
  channel.UpdateHold();
  if (owner.IsEmpty()) return;
  const napi_value args[] = {owner, Napi::Number::New(env_, events)};
  napi_value result = nullptr;
  // Also runs the microtasks, as a callback from the loop has to.
  const napi_status status =
      napi_make_callback(env_, nullptr, owner, dispatch_.Value(), 2, args, &result);
  if (status != napi_pending_exception) return;
  napi_value error = nullptr;
  if (napi_get_and_clear_last_exception(env_, &error) == napi_ok) {
    napi_fatal_exception(env_, error);  // 'uncaughtException'
  }
}

}  // namespace p2pdma::software
