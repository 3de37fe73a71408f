// A fake of a machine whose pages have FAKE_PAGE_SIZE bytes, for LD_PRELOAD: what tells the
// page size tells that one, and mmap(2), madvise(2) and UDMABUF_CREATE refuse what such a
// kernel refuses. It stands in for an arm64 host of 64 KiB pages, which the rig cannot have;
// multiples of 64 KiB are multiples of the real page, so the rest is the real kernel's.
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {

uint64_t PageSize() {
  static const uint64_t size = strtoull(getenv("FAKE_PAGE_SIZE"), nullptr, 10);
  return size;
}

bool Aligned(uint64_t value) { return value % PageSize() == 0; }

template <typename F>
F* Real(F*, const char* name) {
  return reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
}

// Whether it is the addon that asks: V8 and glibc lay out their own memory by the real page.
bool IsOurs(const void* caller) {
  Dl_info info;
  return dladdr(caller, &info) != 0 && info.dli_fname != nullptr &&
         strstr(info.dli_fname, "p2pdma") != nullptr;
}

// A copy of /proc/self/auxv with another AT_PAGESZ.
int OpenAuxv(int real) {
  Elf64_auxv_t vector[64];
  const ssize_t bytes = read(real, vector, sizeof(vector));
  close(real);
  const int copy = memfd_create("fake-auxv", MFD_CLOEXEC);
  for (auto& entry : vector) {
    if (entry.a_type == AT_PAGESZ) entry.a_un.a_val = PageSize();
  }
  if (bytes < 0 || write(copy, vector, static_cast<size_t>(bytes)) != bytes) return -1;
  lseek(copy, 0, SEEK_SET);
  return copy;
}

int Open(const char* name, const char* path, int flags, mode_t mode) {
  static const auto open_real = Real(static_cast<int (*)(const char*, int, mode_t)>(nullptr), name);
  const int fd = open_real(path, flags, mode);
  return fd >= 0 && strcmp(path, "/proc/self/auxv") == 0 ? OpenAuxv(fd) : fd;
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  return Open("open", path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = va_arg(rest, mode_t);
  va_end(rest);
  return Open("open64", path, flags, mode);
}

long sysconf(int name) noexcept {
  static const auto real = Real(&sysconf, "sysconf");
  if (name == _SC_PAGESIZE && IsOurs(__builtin_return_address(0))) {
    return static_cast<long>(PageSize());
  }
  return real(name);
}

void* mmap(void* address, size_t length, int protection, int flags, int fd, off_t offset) noexcept {
  static const auto real = Real(&mmap, "mmap");
  if (IsOurs(__builtin_return_address(0)) &&
      !(Aligned(static_cast<uint64_t>(offset)) &&
        ((flags & MAP_FIXED) == 0 || length % PageSize() == 0))) {
    errno = EINVAL;
    return MAP_FAILED;
  }
  return real(address, length, protection, flags, fd, offset);
}

int madvise(void* address, size_t length, int advice) noexcept {
  static const auto real = Real(&madvise, "madvise");
  if (IsOurs(__builtin_return_address(0)) && !Aligned(length)) {
    errno = EINVAL;
    return -1;
  }
  return real(address, length, advice);
}

int ioctl(int fd, unsigned long request, ...) noexcept {
  static const auto real = Real(static_cast<int (*)(int, unsigned long, ...)>(nullptr), "ioctl");
  va_list rest;
  va_start(rest, request);
  void* const argument = va_arg(rest, void*);
  va_end(rest);
  if (request == UDMABUF_CREATE) {
    const auto* const create = static_cast<const udmabuf_create*>(argument);
    if (!Aligned(create->offset) || !Aligned(create->size)) {
      errno = EINVAL;
      return -1;
    }
  }
  return real(fd, request, argument);
}

}  // extern "C"
