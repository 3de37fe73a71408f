// What descriptors and completions look like, as data that the device's driver
// gives in TypeScript (lib/native.ts). In 32-bit words as the CPU
// has them; indexes of words are below their number.
#pragma once

#include <cstdint>
#include <vector>

namespace p2pdma::ring {

// Of a word that a form does not have.
constexpr uint32_t kNoWord = UINT32_MAX;

// Of one descriptor, or completion, at most.
constexpr uint32_t kMaxWords = 16;

struct Form {
  // What each descriptor has when it is handed over; as many as it has, an
  // even number.
  std::vector<uint32_t> words;
  uint32_t address_word = 0;        // even; and the next one: the IOVA
  uint32_t length_word = kNoWord;   // the length is or'ed into it
  uint32_t block_bytes = 1;         // what lengths, and places in the storage, are counted in
  uint32_t length_less = 0;         // what the device counts less than there is
  uint32_t storage_word = kNoWord;  // even; and the next one: where in the device's storage
  // Even; and the next one: the IOVA of the second page that is reached, or 0.
  uint32_t second_page_word = kNoWord;
  uint32_t page_bytes = 0;      // a power of two
  uint32_t operation_word = 0;  // an operation's code is or'ed into it
  uint32_t id_word = kNoWord;   // the slot is or'ed into it
  uint32_t id_shift = 0;
  // Or'ed into the last descriptor of each batch, which then reports for all
  // of it; 0: each reports for itself.
  uint32_t last_word = 0;
  uint32_t last_bits = 0;
  // Where completions are in the descriptor: not 0 under `done_mask`: the device has finished it.
  uint32_t done_word = 0;
  uint32_t done_mask = 0;
  uint32_t good_mask = 0;  // of the same word: as `good_value`, or it went wrong
  uint32_t good_value = 0;
  uint32_t result_word = 0;  // its bytes
  uint32_t result_mask = 0;
};

// Which side of an operation is the device's own storage.
enum class StorageSide : uint8_t { kNone, kSource, kTarget };

struct Operation {
  uint8_t op = 0;
  StorageSide storage = StorageSide::kNone;
  uint32_t code = 0;
  uint32_t min_length = 0;
  uint32_t max_length = 0;
  uint32_t alignment = 1;  // of offsets and lengths; a power of two
};

// Completions in a ring of their own, which the device fills.
struct CompletionForm {
  uint32_t entries = 0;
  uint32_t words = 0;  // of each
  // The phase: is not 0 under the mask in the first round of the ring, 0 in the second, and so on.
  uint32_t phase_word = 0;
  uint32_t phase_mask = 0;
  uint32_t id_word = 0;  // which slot it is of
  uint32_t id_mask = 0;
  uint32_t id_shift = 0;
  uint32_t good_word = 0;
  uint32_t good_mask = 0;  // as `good_value`, or it went wrong
  uint32_t good_value = 0;
};

}  // namespace p2pdma::ring
