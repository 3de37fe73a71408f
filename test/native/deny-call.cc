// Runs a program under a seccomp filter that answers one system call with an errno,
// as the profile of a container does: deny-call NAME[=INDEX:VALUE] ERRNO PROGRAM ...; of calls with that argument only.
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

struct Call {
  const char* name;
  unsigned number;
};

constexpr Call kCalls[] = {
    {"ioctl", __NR_ioctl},     {"madvise", __NR_madvise}, {"memfd_create", __NR_memfd_create},
    {"eventfd2", __NR_eventfd2}, {"socket", __NR_socket},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  // Without an argument the number is looked at twice.
  size_t place = offsetof(seccomp_data, nr);
  unsigned value = 0;
  char* const argument = strchr(argv[1], '=');
  if (argument != nullptr) {
    unsigned index = 0;
    if (sscanf(argument, "=%u:%u", &index, &value) != 2 || index > 5) return 2;
    place = offsetof(seccomp_data, args) + index * sizeof(uint64_t);
    *argument = '\0';
  }
  const Call* denied = nullptr;
  for (const Call& call : kCalls) {
    if (strcmp(call.name, argv[1]) == 0) denied = &call;
  }
  if (denied == nullptr) return 2;
  if (argument == nullptr) value = denied->number;
  const auto error = static_cast<unsigned>(atoi(argv[2]));
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, denied->number, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(place)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program = {.len = sizeof(filter) / sizeof(*filter), .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
    perror("seccomp");
    return 3;
  }
  execvp(argv[3], argv + 3);
  perror(argv[3]);
  return 3;
}
