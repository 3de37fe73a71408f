// Owners of libibverbs' objects. Each keeps its parents alive, so an object is
// destroyed after all that was made of it, whoever lets go first.
#pragma once

#include <errno.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ioctl.h"
#include "library.h"
#include "object.h"
#include "send_chain.h"
#include "support/mapped_range.h"

namespace p2pdma::verbs {

class Device : public Object {
 public:
  static constexpr Kind kKind = Kind::kDevice;
  explicit Device(ibv_context* context) : Object(kKind, {}), context_(context) {}
  ~Device() override { Abandon(); }
  ibv_context* get() const { return context_; }
  // For the ioctls.
  uint32_t DriverId() {
    uint32_t driver = driver_;
    if (driver == kUnknown) driver_ = driver = FindDriverId(context_);
    return driver;
  }

 private:
  static constexpr uint32_t kUnknown = UINT32_MAX;
  int Destroy() override { return ibv.close_device(context_) == 0 ? 0 : errno; }
  ibv_context* const context_;
  std::atomic<uint32_t> driver_ = kUnknown;
};

class AddressHandle;
class MemoryRegion;

// What a row of a batch names by number. Weak: what is gone is not found.
template <typename T>
class Registry {
 public:
  void Add(uint32_t id, const std::shared_ptr<T>& object) {
    const std::lock_guard<std::mutex> lock(mutex_);
    objects_[id] = object;
  }
  // Unless another has taken its number since.
  void Remove(uint32_t id) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = objects_.find(id);
    if (found == objects_.end()) return;
    const auto object = found->second.lock();
    if (object == nullptr || !object->open()) objects_.erase(found);
  }
  std::shared_ptr<T> Find(uint32_t id) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = objects_.find(id);
    if (found == objects_.end()) return nullptr;
    auto object = found->second.lock();
    return object != nullptr && object->open() ? object : nullptr;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<uint32_t, std::weak_ptr<T>> objects_;
};

class ProtectionDomain : public Object {
 public:
  static constexpr Kind kKind = Kind::kProtectionDomain;
  ProtectionDomain(std::shared_ptr<Device> device, ibv_pd* pd)
      : Object(kKind, {device}), device_(std::move(device)), pd_(pd) {}
  ~ProtectionDomain() override { Abandon(); }
  ibv_pd* get() const { return pd_; }
  Device& device() const { return *device_; }

  // By handle.
  Registry<AddressHandle> address_handles;
  // By lkey; those that the CPU has a mapping of.
  Registry<MemoryRegion> memory_regions;

 private:
  int Destroy() override {
    const int error = ibv.dealloc_pd(pd_);
    if (error == 0) device_ = nullptr;
    return error;
  }
  std::shared_ptr<Device> device_;
  ibv_pd* const pd_;
};

// By the library, or by the kernel's ioctl alone, where the library has no call for it.
class MemoryRegion : public Object {
 public:
  static constexpr Kind kKind = Kind::kMemoryRegion;
  // `range`: null for a dma-buf.
  MemoryRegion(std::shared_ptr<ProtectionDomain> domain, ibv_mr* mr, uint64_t iova,
               std::shared_ptr<MappedRange> range, const std::byte* data);
  MemoryRegion(std::shared_ptr<ProtectionDomain> domain, uint32_t handle, uint32_t lkey,
               uint32_t rkey, uint64_t iova, size_t length);
  ~MemoryRegion() override { Abandon(); }

  // Null where it was registered by the ioctl.
  ibv_mr* get() const { return mr_; }
  uint32_t lkey() const { return lkey_; }
  uint32_t rkey() const { return rkey_; }
  uint64_t iova() const { return iova_; }
  size_t length() const { return length_; }
  const std::shared_ptr<ProtectionDomain>& domain() const { return domain_; }
  // Where the CPU finds what the device finds at `address`; null where it does not.
  const std::byte* Data(uint64_t address, size_t length) const;

 private:
  int Destroy() override;

  std::shared_ptr<ProtectionDomain> domain_;
  ibv_mr* const mr_;
  const uint32_t handle_;
  const uint32_t lkey_;
  const uint32_t rkey_;
  const uint64_t iova_;
  const size_t length_;
  std::shared_ptr<MappedRange> range_;
  const std::byte* const data_;
};

class MemoryWindow : public Object {
 public:
  static constexpr Kind kKind = Kind::kMemoryWindow;
  MemoryWindow(const std::shared_ptr<ProtectionDomain>& domain, ibv_mw* mw)
      : Object(kKind, {domain}), mw_(mw) {}
  ~MemoryWindow() override { Abandon(); }
  ibv_mw* get() const { return mw_; }

 private:
  int Destroy() override { return ibv_dealloc_mw(mw_); }
  ibv_mw* const mw_;
};

class AddressHandle : public Object {
 public:
  static constexpr Kind kKind = Kind::kAddressHandle;
  AddressHandle(std::shared_ptr<ProtectionDomain> domain, ibv_ah* ah)
      : Object(kKind, {domain}), domain_(std::move(domain)), ah_(ah), id_(ah->handle) {}
  ~AddressHandle() override { Abandon(); }
  ibv_ah* get() const { return ah_; }
  uint32_t id() const { return id_; }
  const std::shared_ptr<ProtectionDomain>& domain() const { return domain_; }

 private:
  int Destroy() override {
    const int error = ibv.destroy_ah(ah_);
    if (error == 0) std::exchange(domain_, nullptr)->address_handles.Remove(id_);
    return error;
  }
  std::shared_ptr<ProtectionDomain> domain_;
  ibv_ah* const ah_;
  const uint32_t id_;
};

class Channel : public Object {
 public:
  static constexpr Kind kKind = Kind::kChannel;
  Channel(const std::shared_ptr<Device>& device, ibv_comp_channel* channel)
      : Object(kKind, {device}), channel_(channel) {}
  ~Channel() override { Abandon(); }
  ibv_comp_channel* get() const { return channel_; }

 private:
  int Destroy() override { return ibv.destroy_comp_channel(channel_); }
  ibv_comp_channel* const channel_;
};

class CompletionQueue : public Object {
 public:
  static constexpr Kind kKind = Kind::kCompletionQueue;
  CompletionQueue(const std::shared_ptr<Device>& device, const std::shared_ptr<Channel>& channel,
                  ibv_cq* cq)
      : Object(kKind, {device, channel}), cq_(cq) {}
  ~CompletionQueue() override { Abandon(); }
  ibv_cq* get() const { return cq_; }

 private:
  int Destroy() override { return ibv.destroy_cq(cq_); }
  ibv_cq* const cq_;
};

class SharedReceiveQueue : public Object {
 public:
  static constexpr Kind kKind = Kind::kSharedReceiveQueue;
  SharedReceiveQueue(const std::shared_ptr<ProtectionDomain>& domain, ibv_srq* srq, uint32_t size)
      : Object(kKind, {domain}), depth(size), srq_(srq) {}
  ~SharedReceiveQueue() override { Abandon(); }
  ibv_srq* get() const { return srq_; }
  const uint32_t depth;

 private:
  int Destroy() override { return ibv.destroy_srq(srq_); }
  ibv_srq* const srq_;
};

class QueuePair : public Object {
 public:
  static constexpr Kind kKind = Kind::kQueuePair;
  QueuePair(std::shared_ptr<ProtectionDomain> domain,
            const std::shared_ptr<CompletionQueue>& send_cq,
            const std::shared_ptr<CompletionQueue>& receive_cq,
            const std::shared_ptr<SharedReceiveQueue>& srq, ibv_qp* qp, const ibv_qp_cap& caps)
      : Object(kKind, {domain, send_cq, receive_cq, srq}),
        domain_(std::move(domain)),
        qp_(qp),
        caps_(caps) {}
  ~QueuePair() override { Abandon(); }
  ibv_qp* get() const { return qp_; }
  const ibv_qp_cap& caps() const { return caps_; }
  ProtectionDomain& domain() const { return *domain_; }

  // Of the post under way.
  SendChain chain;

 private:
  int Destroy() override {
    const int error = ibv.destroy_qp(qp_);
    if (error == 0) domain_ = nullptr;
    return error;
  }
  std::shared_ptr<ProtectionDomain> domain_;
  ibv_qp* const qp_;
  const ibv_qp_cap caps_;
};

}  // namespace p2pdma::verbs
