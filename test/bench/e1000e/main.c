// The benchmark's counterpart in C: what the same traffic and the same moves
// cost without the library. One JSON object on stdout.
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "peer.h"
#include "vfio.h"

static const char usage[] =
    "usage: e1000e-peer frames --nics BDF,BDF [--depth N] [--batch N] [--frames N]\n"
    "       e1000e-peer pause --nics BDF,BDF --memory BDF [--depth N] [--size BYTES]\n"
    "                   [--moves N] [--from bar|system]\n";

static _Noreturn void misused(void) {
  fputs(usage, stderr);
  exit(2);
}

static uint64_t number(const char* text, uint64_t most) {
  char* end;
  errno = 0;
  const unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || *end != '\0' || text[0] == '-' || value < 1 || value > most) misused();
  return value;
}

static void parse(struct settings* settings, int argc, char** argv) {
  static const struct option options[] = {{"nics", required_argument, NULL, 'n'},
                                          {"memory", required_argument, NULL, 'm'},
                                          {"depth", required_argument, NULL, 'd'},
                                          {"batch", required_argument, NULL, 'b'},
                                          {"frames", required_argument, NULL, 'f'},
                                          {"size", required_argument, NULL, 's'},
                                          {"moves", required_argument, NULL, 'k'},
                                          {"from", required_argument, NULL, 'o'},
                                          {NULL, 0, NULL, 0}};
  for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
    switch (option) {
      case 'n':
        settings->sender = strtok(optarg, ",");
        settings->receiver = strtok(NULL, ",");
        break;
      case 'm':
        settings->memory = optarg;
        break;
      case 'd':
        settings->depth = (uint32_t)number(optarg, 2048);
        if (settings->depth < 8 || (settings->depth & (settings->depth - 1)) != 0) misused();
        break;
      case 'b':
        settings->batch = (uint32_t)number(optarg, 2048);
        break;
      case 'f':
        settings->frames = (uint32_t)number(optarg, UINT32_C(1) << 30);
        break;
      case 's':
        settings->size = number(optarg, UINT64_C(1) << 32);
        if (settings->size % 4096 != 0) misused();
        break;
      case 'k':
        settings->moves = (uint32_t)number(optarg, 1000000);
        break;
      case 'o':
        settings->from_bar = strcmp(optarg, "bar") == 0;
        if (!settings->from_bar && strcmp(optarg, "system") != 0) misused();
        break;
      default:
        misused();
    }
  }
  if (optind != argc || settings->sender == NULL || settings->receiver == NULL) misused();
}

int main(int argc, char** argv) {
  struct settings settings = {
      .depth = 512, .batch = 32, .frames = 32768, .size = 65536, .moves = 10, .from_bar = 1};
  if (argc < 2) misused();
  parse(&settings, argc - 1, argv + 1);
  if (strcmp(argv[1], "frames") == 0) {
    run_frames(&settings);
  } else if (strcmp(argv[1], "pause") == 0 && settings.memory != NULL) {
    run_pause(&settings);
  } else {
    misused();
  }
  return 0;
}
