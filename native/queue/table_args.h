// The columns of an attachment table as arguments.
#pragma once

#include <napi.h>

#include "queue/table.h"
#include "support/args.h"
#include "support/column_args.h"

namespace p2pdma::queue {

// (capacity, ids, states, access, iovas, sizes)
inline TableColumns TableArgs(const Napi::CallbackInfo& info) {
  TableColumns columns;
  const uint32_t capacity = columns.capacity = Uint32Arg(info, 0, "capacity");
  columns.ids = Column<uint32_t>(ColumnArg(info, 1, "ids", napi_uint32_array, capacity));
  columns.states = Column<uint8_t>(ColumnArg(info, 2, "states", napi_uint8_array, capacity));
  columns.access = Column<uint8_t>(ColumnArg(info, 3, "access", napi_uint8_array, capacity));
  columns.iovas = Column<double>(ColumnArg(info, 4, "iovas", napi_float64_array, capacity));
  columns.sizes = Column<double>(ColumnArg(info, 5, "sizes", napi_float64_array, capacity));
  return columns;
}

}  // namespace p2pdma::queue
