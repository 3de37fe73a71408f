// An engine in an environment: its place in the event loop, and what keeps the
// JavaScript objects and the process alive while something is pending.
#pragma once

#include <napi.h>
#include <uv.h>

#include <memory>
#include <vector>

#include "engine.h"

namespace p2pdma::software {

class Host;

// A channel as JavaScript has it. Its functions own it; so does, while an
// event is to come, the JavaScript object that they belong to.
class HostChannel : public std::enable_shared_from_this<HostChannel> {
 public:
  HostChannel(std::shared_ptr<Host> host, uint32_t depth, Napi::Object owner, uint32_t* doorbell);
  ~HostChannel();
  HostChannel(const HostChannel&) = delete;
  HostChannel& operator=(const HostChannel&) = delete;

  bool closed() const { return core_ == nullptr; }
  // Gives up all work. Idempotent.
  void Close();
  // Ref'ed, the loop and the owner, while an event is to come: a stop's
  // answer, or the completion of work in flight that was asked for.
  void UpdateHold() {
    const bool wanted =
        core_ != nullptr && (stop_pending || (core_->in_flight() != 0 && core_->Expecting()));
    if (wanted != held_) SetHold(wanted);
  }

  Host& host() { return *host_; }
  Channel& core() { return *core_; }

  BatchColumns batch;
  CompletionColumns completions;
  // Numbers that go in and out with a call: Doorbell in software.cc.
  uint32_t* const doorbell;
  bool stop_pending = false;

 private:
  friend class Host;
  void SetHold(bool held);

  // Of the host's channels.
  size_t place_ = 0;
  std::shared_ptr<Host> host_;
  Napi::ObjectReference owner_;
  // Null when closed. Last: it is the engine's too, once it is made.
  std::shared_ptr<Channel> core_;
  bool held_ = false;
};

class Host : public std::enable_shared_from_this<Host> {
 public:
  // `dispatch(owner, events)` is called on the event loop.
  static std::shared_ptr<Host> Open(Napi::Env env, Napi::Function dispatch);
  ~Host() { Shutdown(); }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  bool closed() const { return async_ == nullptr; }
  Engine& engine() { return *engine_; }
  void Add(const std::shared_ptr<HostChannel>& channel);
  // The thread is joined, which takes a chunk at most, and the loop's handle
  // closed. Idempotent; also called when the environment ends.
  void Shutdown();

 private:
  friend class HostChannel;

  void Remove(const HostChannel& channel);
  void Fill(size_t place);

  // Lives until libuv has closed the handle.
  struct Async {
    uv_async_t handle;
    Host* host;
    napi_async_cleanup_hook_handle hook;
  };

  // While its channels are looked at.
  class Dispatching {
   public:
    explicit Dispatching(Host& host) : host_(host) { host_.is_dispatching_ = true; }
    ~Dispatching();
    Dispatching(const Dispatching&) = delete;
    Dispatching& operator=(const Dispatching&) = delete;

   private:
    Host& host_;
  };

  explicit Host(Napi::Env env) : env_(env) {}
  void OnEvents();
  void Dispatch(HostChannel& channel, uint32_t events);
  void Ref();
  void Unref();

  const Napi::Env env_;
  std::unique_ptr<Engine> engine_;
  Async* async_ = nullptr;
  uint32_t refs_ = 0;
  Napi::FunctionReference dispatch_;
  // Those that are open; null while events are dispatched, of one that was closed meanwhile.
  std::vector<HostChannel*> channels_;
  bool is_dispatching_ = false;
};

}  // namespace p2pdma::software
