// Owners of librdmacm's objects. An id has no queue pair of librdmacm's: that
// would have to be of the context that it opens by itself, and none of ours
// could be shared with it. The caller moves its own by what CmInitQpAttr says.
#pragma once

#include <errno.h>

#include <atomic>
#include <memory>

#include "library.h"
#include "object.h"

namespace p2pdma::verbs {

class CmChannel : public Object {
 public:
  static constexpr Kind kKind = Kind::kCmChannel;
  explicit CmChannel(rdma_event_channel* channel) : Object(kKind, {}), channel_(channel) {}
  ~CmChannel() override { Abandon(); }
  rdma_event_channel* get() const { return channel_; }
  // For an id's context: what its events are called. From 1.
  uintptr_t NextNumber() { return ++last_number_; }

 private:
  int Destroy() override {
    rdma.destroy_event_channel(channel_);
    return 0;
  }
  rdma_event_channel* const channel_;
  std::atomic<uint32_t> last_number_ = 0;
};

class CmId : public Object {
 public:
  static constexpr Kind kKind = Kind::kCmId;
  CmId(const std::shared_ptr<CmChannel>& channel, rdma_cm_id* id)
      : Object(kKind, {channel}), id_(id) {
    id->context = reinterpret_cast<void*>(channel->NextNumber());
  }
  ~CmId() override { Abandon(); }
  rdma_cm_id* get() const { return id_; }
  double number() const { return static_cast<double>(reinterpret_cast<uintptr_t>(id_->context)); }

 private:
  int Destroy() override { return rdma.destroy_id(id_) == 0 ? 0 : errno; }
  rdma_cm_id* const id_;
};

}  // namespace p2pdma::verbs
