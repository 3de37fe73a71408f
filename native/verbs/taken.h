// What a post that failed has taken. ibv_post_send(3) leaves the first request
// that it did not take in `*bad_wr`; a provider may leave it null (librxe: a
// wrong state, a doorbell that fails), or any other value.
#pragma once

#include <errno.h>

#include <cstdint>
#include <optional>

namespace p2pdma::verbs {

// How many of the chain's `count` requests stand before `bad`; nothing where it is none of them.
template <typename Request>
std::optional<uint32_t> TakenBefore(const Request* chain, uint32_t count, const Request* bad) {
  const auto first = reinterpret_cast<uintptr_t>(chain);
  const auto at = reinterpret_cast<uintptr_t>(bad);
  const uintptr_t length = uintptr_t{count} * sizeof(Request);
  if (bad == nullptr || at < first || at - first >= length) return std::nullopt;
  if ((at - first) % sizeof(Request) != 0) return std::nullopt;
  return static_cast<uint32_t>((at - first) / sizeof(Request));
}

// What a call of libibverbs' returned, as an errno: some providers return it negative,
// or -1 with errno set.
inline int Refusal(int returned) {
  if (returned >= 0) return returned;
  if (returned == -1 && errno > 0) return errno;
  return -returned;
}

}  // namespace p2pdma::verbs
