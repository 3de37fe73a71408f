#include "engine.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <new>
#include <utility>

namespace p2pdma::software {

namespace {

// How long an idle device looks for work before it sleeps. Waking it costs a
// few microseconds; on a single core the spinning would keep work away.
constexpr uint64_t kSpin = 20'000;  // ns
// Pauses between two looks at the rings, a microsecond at most: each look takes
// their cache lines from the thread that posts.
constexpr int kPauses = 12;

}  // namespace

Engine::Engine(std::function<void()> notify) : notify_(std::move(notify)) {
  // Signals are the process's main thread's business.
  sigset_t all;
  sigset_t old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  try {
    thread_ = std::thread([this] { Loop(); });
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

std::shared_ptr<Channel> Engine::OpenChannel(uint32_t depth) {
  auto channel = std::make_shared<Channel>(next_index_++, depth);
  {
    const std::lock_guard lock(channels_mutex_);
    channels_.push_back(channel);
  }
  Kick();
  return channel;
}

void Engine::CloseChannel(const std::shared_ptr<Channel>& channel) {
  channel->Close();
  {
    const std::lock_guard lock(channels_mutex_);
    std::erase(channels_, channel);
  }
  Kick();
}

bool Engine::Stop(Channel& channel) {
  const bool quiet = channel.Stop();
  if (!quiet) Kick();
  return quiet;
}

bool Engine::Restart(Channel& channel) {
  const bool restarted = channel.Restart(table_);
  Kick();
  return restarted;
}

bool Engine::Unmap(uint32_t id) {
  AttachmentTable::Retired retired;
  if (!table_.Unmap(id, &retired)) return false;
  if (!injections_.empty()) {
    if (const auto stray = injections_.Take(Fault::kStray, 0)) {
      strays_.Schedule(*stray, std::move(retired));
      Kick();
    }
  }
  return true;
}

void Engine::Inject(const Injection& injection) {
  injections_.Add(injection);
  Kick();
}

void Engine::Unstall(Channel* channel) {
  if (channel != nullptr) {
    channel->Unstall();
  } else {
    const std::lock_guard lock(channels_mutex_);
    for (const auto& each : channels_) each->Unstall();
  }
  Kick();
}

void Engine::Close() {
  if (closed_) return;
  closed_ = true;
  closing_.store(true, std::memory_order_seq_cst);
  Kick();
  thread_.join();
  for (const auto& channel : channels_) channel->Close();
  channels_.clear();
  table_.Clear();
}

void Engine::Loop() {
  pthread_setname_np(pthread_self(), "p2pdma-software");
  Device device(table_, injections_, stats_);
  std::vector<std::shared_ptr<Channel>> channels;
  uint32_t seen = controls_.load(std::memory_order_seq_cst) - 1;
  uint64_t idle_since = 0;
  const uint64_t spin = std::thread::hardware_concurrency() > 1 ? kSpin : 0;
  while (!closing_.load(std::memory_order_acquire)) {
    const uint32_t controls = controls_.load(std::memory_order_seq_cst);
    Device::Turn all;
    if (controls != seen) {
      if (TakeChannels(&channels)) {
        seen = controls;
      } else {
        all.deadline = Now() + kMemoryPatience;
      }
    }
    for (const auto& channel : channels) {
      const Device::Turn turn = device.Visit(*channel);
      all.progress |= turn.progress;
      all.more |= turn.more;
      all.notify |= turn.notify;
      all.deadline = std::min(all.deadline, turn.deadline);
    }
    if (all.notify) notify_();
    if (!strays_.empty()) Stats::Add(&stats_.injected, strays_.Run(Now(), &all.deadline));
    if (all.more) {
      idle_since = 0;
      continue;
    }
    for (int i = 0; i < kPauses; ++i) CpuRelax();
    if (all.progress) {
      idle_since = 0;
      continue;
    }
    const uint64_t now = Now();
    if (idle_since == 0) idle_since = now;
    if (now - idle_since < spin) continue;
    Sleep(channels, controls, all.deadline);
    idle_since = 0;
  }
}

bool Engine::TakeChannels(std::vector<std::shared_ptr<Channel>>* out) {
  const std::lock_guard lock(channels_mutex_);
  try {
    *out = channels_;
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

bool Engine::AnythingPosted(const std::vector<std::shared_ptr<Channel>>& channels) const {
  return std::any_of(channels.begin(), channels.end(),
                     [](const auto& channel) { return channel->HasNews(); });
}

void Engine::Sleep(const std::vector<std::shared_ptr<Channel>>& channels, uint32_t controls,
                   uint64_t deadline) {
  // `asleep_` first, then a last look; who has something for us does it the
  // other way round. All of it seq_cst: one of the two sides sees the other.
  asleep_.store(1, std::memory_order_seq_cst);
  if (controls_.load(std::memory_order_seq_cst) == controls && !AnythingPosted(channels)) {
    Stats::Add(&stats_.sleeps, 1);
    FutexWait(&asleep_, 1, deadline);
  }
  asleep_.store(0, std::memory_order_seq_cst);
}

}  // namespace p2pdma::software
