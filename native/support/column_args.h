// Columns as arguments: typed arrays that native code keeps pointers into. The
// JavaScript side keeps the arrays alive, and with them the memory.
#pragma once

#include <napi.h>

#include <cstddef>

#include "support/columns.h"

namespace p2pdma {

// The memory of a typed array of at least `capacity` elements. It must be
// shared: an ArrayBuffer can be detached, and its memory freed, while somebody
// holds the pointer. Columns that are kept by one of them lie in one memory:
// `memory` is the first one's, once it is known.
void* ColumnOf(const Napi::Value& value, const char* name, napi_typedarray_type wanted,
               size_t capacity, napi_value* memory = nullptr);

inline void* ColumnArg(const Napi::CallbackInfo& info, size_t index, const char* name,
                       napi_typedarray_type wanted, size_t capacity, napi_value* memory = nullptr) {
  return ColumnOf(info[index], name, wanted, capacity, memory);
}

// (capacity, sourceOffset, targetOffset, length, operand, cookie, source, target, op)
BatchColumns BatchArgs(const Napi::CallbackInfo& info);

// (capacity, cookie, result, status, epoch)
CompletionColumns CompletionArgs(const Napi::CallbackInfo& info);

}  // namespace p2pdma
