// The engine: a device on a thread of its own, its table and its channels.
// Nothing here knows JavaScript. All methods are for one thread, the owner's.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "channel.h"
#include "device.h"
#include "injection.h"
#include "table.h"
#include "wait.h"

namespace p2pdma::software {

class Engine {
 public:
  // `notify` is called on the device thread, and from `Arm`, when a channel
  // has events; it must not block. Throws std::system_error without a thread.
  explicit Engine(std::function<void()> notify);
  ~Engine() { Close(); }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  AttachmentTable& table() { return table_; }
  const Stats& stats() const { return stats_; }
  bool closed() const { return closed_; }

  // `depth` is a power of two.
  std::shared_ptr<Channel> OpenChannel(uint32_t depth);
  void CloseChannel(const std::shared_ptr<Channel>& channel);
  PostResult Post(Channel& channel, const BatchColumns& batch, uint32_t first, uint32_t count) {
    const PostResult result = channel.Post(table_, batch, first, count);
    if (result.accepted != 0) WakeIfAsleep();
    return result;
  }
  // True: quiet already, there will be no event.
  bool Stop(Channel& channel);
  bool Restart(Channel& channel);
  void Arm(Channel& channel) {
    if (channel.Arm()) notify_();
  }
  bool Unmap(uint32_t id);
  void Inject(const Injection& injection);
  // Ends stalls: of one channel, or of all of them (nullptr).
  void Unstall(Channel* channel);
  // Joins the thread, which takes a chunk at most. Idempotent.
  void Close();

 private:
  void Loop();
  // False where there is no memory for them: they are as before.
  bool TakeChannels(std::vector<std::shared_ptr<Channel>>* out);
  bool AnythingPosted(const std::vector<std::shared_ptr<Channel>>& channels) const;
  void Sleep(const std::vector<std::shared_ptr<Channel>>& channels, uint32_t controls,
             uint64_t deadline);
  void WakeIfAsleep() {
    if (asleep_.load(std::memory_order_seq_cst) != 0) {
      asleep_.store(0, std::memory_order_seq_cst);
      FutexWake(&asleep_);
    }
  }
  // Makes the device look at everything anew.
  void Kick() {
    controls_.fetch_add(1, std::memory_order_seq_cst);
    WakeIfAsleep();
  }

  const std::function<void()> notify_;
  AttachmentTable table_;
  InjectionBook injections_;
  StrayWrites strays_;
  Stats stats_;
  bool closed_ = false;
  uint32_t next_index_ = 1;
  // Seldom written; apart from what the device writes for each operation.
  alignas(64) std::atomic<bool> closing_{false};
  std::atomic<uint32_t> controls_{0};  // counts Kick()s
  std::atomic<uint32_t> asleep_{0};    // the futex
  std::mutex channels_mutex_;
  std::vector<std::shared_ptr<Channel>> channels_;  // guarded by channels_mutex_
  std::thread thread_;                              // last: it uses all of the above
};

}  // namespace p2pdma::software
