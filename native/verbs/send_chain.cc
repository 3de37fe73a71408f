#include "send_chain.h"

namespace p2pdma::verbs {

void SendChain::Reserve(uint32_t count) {
  if (ranges_.size() < count) ranges_.resize(count);
  // Last: its size is the chain's.
  if (requests_.size() < count) requests_.resize(count);
}

ibv_send_wr& SendChain::Add() {
  ibv_send_wr& request = requests_[count_];
  request = {};
  ranges_[count_] = {};
  ++count_;
  return request;
}

ibv_sge& SendChain::Range(ibv_send_wr& request) { return ranges_[Index(&request)]; }

ibv_send_wr* SendChain::Finish() {
  if (count_ == 0) return nullptr;
  for (uint32_t i = 0; i + 1 < count_; ++i) requests_[i].next = &requests_[i + 1];
  return requests_.data();
}

void SendChain::Clear() {
  count_ = 0;
  kept_.clear();
}

}  // namespace p2pdma::verbs
