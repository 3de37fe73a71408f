#include "library.h"

#include <dlfcn.h>

#include <mutex>

namespace p2pdma::verbs {

IbvCalls ibv;
RdmaCalls rdma;

namespace {

template <typename Call>
bool Find(void* library, const char* name, const char* version, Call* out) {
#ifdef __GLIBC__
  *out = reinterpret_cast<Call>(dlvsym(library, name, version));
#else
  // musl knows one version of each: the library's newest.
  static_cast<void>(version);
  *out = reinterpret_cast<Call>(dlsym(library, name));
#endif
  return *out != nullptr;
}

// Each returns the first function that there should always be, and is not; or null.
#define P2PDMA_ALWAYS(prefix, name, version) \
  if (!Find(library, #prefix "_" #name, version, &calls->name)) return #prefix "_" #name;
#define P2PDMA_LATER(prefix, name, version) \
  Find(library, #prefix "_" #name, version, &calls->name.call);

const char* FindAll(void* library, IbvCalls* calls) {
  P2PDMA_IBV_CALLS(P2PDMA_ALWAYS, P2PDMA_LATER)
  return nullptr;
}

const char* FindAll(void* library, RdmaCalls* calls) {
  P2PDMA_RDMA_CALLS(P2PDMA_ALWAYS, P2PDMA_LATER)
  return nullptr;
}

#undef P2PDMA_ALWAYS
#undef P2PDMA_LATER

template <typename Calls>
std::string Open(const char* file, Calls* calls) {
  // One for each library. Every environment passes here before it calls anything of it,
  // and nothing is written once it is open.
  static std::mutex mutex;
  static bool is_open = false;
  const std::lock_guard<std::mutex> lock(mutex);
  if (is_open) return {};
  void* const library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return dlerror();
  Calls found;
  if (const char* const name = FindAll(library, &found)) {
    return std::string(file) + ": no function " + name + " in it";
  }
  *calls = found;
  is_open = true;
  return {};
}

}  // namespace

std::string OpenIbv() { return Open("libibverbs.so.1", &ibv); }

std::string OpenRdma() { return Open("librdmacm.so.1", &rdma); }

}  // namespace p2pdma::verbs

// What the inline functions of verbs.h call where a context has not the operation. They
// are this addon's own (-fvisibility=hidden): no provider is bound to them.
extern "C" {

int(ibv_query_device)(ibv_context* context, ibv_device_attr* attr) {
  return p2pdma::verbs::ibv.query_device(context, attr);
}

int(ibv_query_port)(ibv_context* context, uint8_t port, _compat_ibv_port_attr* attr) {
  return p2pdma::verbs::ibv.query_port(context, port, attr);
}
}
