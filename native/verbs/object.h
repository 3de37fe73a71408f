// What every object of libibverbs has in common here: it closes once, after
// its children, off the event loop where that may take long.
#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

namespace p2pdma::verbs {

enum class Kind : uint32_t {
  kDevice,
  kProtectionDomain,
  kMemoryRegion,
  kMemoryWindow,
  kAddressHandle,
  kChannel,
  kCompletionQueue,
  kSharedReceiveQueue,
  kQueuePair,
  kCmChannel,
  kCmId,
};

const char* KindName(Kind kind);

class Reaper;

// Keeps its parents alive until it has been destroyed.
class Object {
 public:
  using Ptr = std::shared_ptr<Object>;

  virtual ~Object();
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  Kind kind() const { return kind_; }
  bool open() const { return state_ == State::kOpen; }

  // On the event loop: from now on nobody uses it. False: somebody was first.
  bool Begin();
  // On any thread, after Begin(). 0, or an errno, and then it is open again:
  // EBUSY where a child is left, or a call under way.
  int Close();

  // A call on another thread uses it: it does not close before `Unborrow`.
  void Borrow() { ++users_; }
  void Unborrow() { --users_; }

 protected:
  Object(Kind kind, std::initializer_list<Ptr> parents);

  // 0 or an errno.
  virtual int Destroy() = 0;
  // For the destructor of each class: nobody holds it, nor a child of it.
  void Abandon();

 private:
  friend class Reaper;

  enum class State : uint32_t { kOpen, kClosing, kClosed };

  void LeaveParents();

  const Kind kind_;
  std::atomic<State> state_ = State::kOpen;
  // Children, and calls under way.
  std::atomic<uint32_t> users_ = 0;
  std::vector<Ptr> parents_;
  // The reaper's, under its lock.
  Ptr next_to_reap_;
  bool reaping_ = false;
};

// Use of an object by a call on another thread.
template <typename T>
class Lease {
 public:
  explicit Lease(std::shared_ptr<T> object) : object_(std::move(object)) {
    if (object_ != nullptr) object_->Borrow();
  }
  Lease(const Lease& other) : Lease(other.object_) {}
  Lease(Lease&& other) noexcept = default;
  Lease& operator=(const Lease&) = delete;
  ~Lease() {
    if (object_ != nullptr) object_->Unborrow();
  }
  T* operator->() const { return object_.get(); }
  const std::shared_ptr<T>& object() const { return object_; }

 private:
  std::shared_ptr<T> object_;
};

// Gives what was never closed to a thread that may block: a finalizer of the
// garbage collector's may not (rxe waits up to 50 s in a deregistration,
// drivers/infiniband/sw/rxe/rxe_pool.c, __rxe_cleanup).
void Reap(Object::Ptr object);

}  // namespace p2pdma::verbs
