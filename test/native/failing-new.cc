// Linked into a copy of an addon, for test/unit/out-of-memory.test.ts: its
// operator new fails when it is told to. The addon's own module entry has been
// renamed to `addon_register` (objcopy); this one adds failAllocation(n): the
// n-th allocation from now on fails, and those behind it do not; 0: none. It returns
// whether the last one that was asked for has failed. liveAllocations(): how many there are.
#include <node_api.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int64_t> left{0};
// Allocated and not freed.
std::atomic<int64_t> live{0};

void* Allocate(std::size_t size, std::size_t alignment) {
  if (left.load(std::memory_order_relaxed) > 0 && left.fetch_sub(1) == 1) throw std::bad_alloc();
  void* const memory = alignment <= alignof(std::max_align_t)
                           ? std::malloc(size == 0 ? 1 : size)
                           : std::aligned_alloc(alignment, (size + alignment - 1) & ~(alignment - 1));
  if (memory == nullptr) throw std::bad_alloc();
  ++live;
  return memory;
}

void Free(void* memory) {
  if (memory != nullptr) --live;
  std::free(memory);
}

napi_value LiveAllocations(napi_env env, napi_callback_info) {
  napi_value result = nullptr;
  napi_create_int64(env, live.load(), &result);
  return result;
}

napi_value FailAllocation(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value argument = nullptr;
  int64_t wanted = 0;
  napi_get_cb_info(env, info, &count, &argument, nullptr, nullptr);
  napi_get_value_int64(env, argument, &wanted);
  napi_value result = nullptr;
  napi_get_boolean(env, left.exchange(wanted) <= 0, &result);
  return result;
}

}  // namespace

void* operator new(std::size_t size) { return Allocate(size, 0); }
void* operator new[](std::size_t size) { return Allocate(size, 0); }
void* operator new(std::size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t size, std::align_val_t alignment) {
  return Allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { Free(memory); }
void operator delete[](void* memory) noexcept { Free(memory); }
void operator delete(void* memory, std::size_t) noexcept { Free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { Free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { Free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { Free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { Free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { Free(memory); }

extern "C" {
napi_value addon_register(napi_env env, napi_value exports);

NAPI_MODULE_EXPORT napi_value napi_register_module_v1(napi_env env, napi_value exports) {
  napi_value result = addon_register(env, exports);
  if (result == nullptr) result = exports;
  napi_value function = nullptr;
  napi_create_function(env, "failAllocation", NAPI_AUTO_LENGTH, FailAllocation, nullptr, &function);
  napi_set_named_property(env, result, "failAllocation", function);
  napi_create_function(env, "live", NAPI_AUTO_LENGTH, LiveAllocations, nullptr, &function);
  napi_set_named_property(env, result, "liveAllocations", function);
  return result;
}
}
