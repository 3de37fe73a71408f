#include "object.h"

#include <errno.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

namespace p2pdma::verbs {

const char* KindName(Kind kind) {
  static constexpr const char* kNames[] = {
      "device",         "protection domain",  "memory region",    "memory window",
      "address handle", "completion channel", "completion queue", "shared receive queue",
      "queue pair",     "connection manager", "connection"};
  return kNames[static_cast<uint32_t>(kind)];
}

Object::Object(Kind kind, std::initializer_list<Ptr> parents) : kind_(kind) {
  parents_.reserve(parents.size());
  for (const Ptr& parent : parents) {
    if (parent == nullptr) continue;
    parents_.push_back(parent);
    ++parent->users_;
  }
}

Object::~Object() { LeaveParents(); }

bool Object::Begin() {
  State expected = State::kOpen;
  return state_.compare_exchange_strong(expected, State::kClosing);
}

int Object::Close() {
  const int error = users_ == 0 ? Destroy() : EBUSY;
  state_ = error == 0 ? State::kClosed : State::kOpen;
  if (error == 0) LeaveParents();
  return error;
}

void Object::Abandon() {
  // What fails here is the kernel's to take back, with the device's descriptor.
  if (state_ != State::kClosed) Destroy();
  state_ = State::kClosed;
}

void Object::LeaveParents() {
  for (const Ptr& parent : parents_) --parent->users_;
  parents_.clear();
}

class Reaper {
 public:
  // Never destroyed: its thread may run while the process exits.
  static Reaper& Get() {
    static Reaper* const reaper = new Reaper();
    return *reaper;
  }

  // Without an allocation: finalizers call it.
  void Take(Object::Ptr object) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      // Another of its owners has let go of it too.
      if (object->reaping_) return;
      object->reaping_ = true;
      Object* const raw = object.get();
      raw->next_to_reap_ = std::move(first_);
      first_ = std::move(object);
      if (!running_) {
        try {
          std::thread([this] { Run(); }).detach();
          running_ = true;
        } catch (...) {
          // No thread to be had: the next one tries again.
        }
      }
    }
    ready_.notify_one();
  }

 private:
  void Run() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      ready_.wait(lock, [this] { return first_ != nullptr; });
      Object::Ptr object = std::move(first_);
      first_ = std::move(object->next_to_reap_);
      object->reaping_ = false;
      lock.unlock();
      object.reset();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable ready_;
  // The last one that came; each has the one before it.
  Object::Ptr first_;
  bool running_ = false;
};

void Reap(Object::Ptr object) { Reaper::Get().Take(std::move(object)); }

}  // namespace p2pdma::verbs
