#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "object.h"

namespace p2pdma::verbs {

// A chain of requests, kept by its user so that a post allocates nothing.
class SendChain {
 public:
  // The chain for one post of `count` requests at most: empty before it and behind it.
  class Use {
   public:
    Use(SendChain& chain, uint32_t count) : chain_(chain) {
      chain_.Clear();
      chain_.Reserve(count);
    }
    ~Use() { chain_.Clear(); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    SendChain& chain_;
  };

  void Reserve(uint32_t count);
  uint32_t capacity() const { return static_cast<uint32_t>(requests_.size()); }
  // The next request and its one range, cleared.
  ibv_send_wr& Add();
  ibv_sge& Range(ibv_send_wr& request);
  // Takes the last one back.
  void Drop() { --count_; }
  // Linked, or null where it is empty.
  ibv_send_wr* Finish();
  uint32_t count() const { return count_; }
  void Clear();
  // Keeps what a request points to until the post is over.
  void Keep(Object::Ptr object) { kept_.push_back(std::move(object)); }
  // How many requests stand before this one.
  uint32_t Index(const ibv_send_wr* request) const {
    return static_cast<uint32_t>(request - requests_.data());
  }

 private:
  std::vector<ibv_send_wr> requests_;
  std::vector<ibv_sge> ranges_;
  std::vector<Object::Ptr> kept_;
  uint32_t count_ = 0;
};

}  // namespace p2pdma::verbs
