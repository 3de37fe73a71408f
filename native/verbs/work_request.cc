#include "work_request.h"

#include <endian.h>

#include <utility>

namespace p2pdma::verbs {

namespace {

constexpr uint32_t kSendFlags =
    IBV_SEND_FENCE | IBV_SEND_SIGNALED | IBV_SEND_SOLICITED | IBV_SEND_INLINE;

bool Malformed(Defect* defect, const char* column, const char* what) {
  *defect = {column, what};
  return false;
}

constexpr const char* kNotWhole = "must be a whole number from 0 to 2^53 - 1";

// Of IBV_WR_*: what a row needs.
struct Shape {
  bool known;
  bool local;
  bool remote;
  bool atomic;
  bool datagram;
};

Shape ShapeOf(uint8_t opcode) {
  switch (opcode) {
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
    case IBV_WR_RDMA_READ:
      return {true, true, true, false, false};
    case IBV_WR_SEND:
    case IBV_WR_SEND_WITH_IMM:
      return {true, true, false, false, true};
    case IBV_WR_SEND_WITH_INV:
      return {true, true, false, false, false};
    case IBV_WR_ATOMIC_CMP_AND_SWP:
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
      return {true, true, true, true, false};
    case IBV_WR_LOCAL_INV:
      return {true, false, false, false, false};
    default:
      return {};
  }
}

bool ReadRange(Column<double> addresses, Column<double> lengths, Column<uint32_t> lkeys,
               uint32_t row, ibv_sge* range, Defect* defect) {
  uint64_t length = 0;
  if (!Whole(lengths.Read(row), &length) || length > (uint64_t{1} << 31)) {
    return Malformed(defect, "length", "must be a whole number from 0 to 2^31");
  }
  if (!Whole(addresses.Read(row), &range->addr)) return Malformed(defect, "address", kNotWhole);
  range->length = static_cast<uint32_t>(length);
  range->lkey = lkeys.Read(row);
  return true;
}

// The CPU reads inline data in the post itself: `address` is what the device
// would find it by, and nobody but us says where that is.
bool ResolveInline(QueuePair& pair, SendChain* chain, ibv_sge* range, Defect* defect) {
  if (range->length > pair.caps().max_inline_data) {
    return Malformed(defect, "length", "is more than the queue pair's maxInlineData");
  }
  auto region = pair.domain().memory_regions.Find(range->lkey);
  const std::byte* const data =
      region == nullptr ? nullptr : region->Data(range->addr, range->length);
  if (data == nullptr) {
    return Malformed(defect, "lkey", "must be of a region of mapped memory around the inline data");
  }
  range->addr = reinterpret_cast<uintptr_t>(data);
  chain->Keep(std::move(region));
  return true;
}

bool ReadRemote(const SendColumns& columns, uint32_t row, const Shape& shape, ibv_send_wr* request,
                Defect* defect) {
  uint64_t address = 0;
  if (!Whole(columns.remote_address.Read(row), &address)) {
    return Malformed(defect, "remoteAddress", kNotWhole);
  }
  const uint32_t rkey = columns.rkey.Read(row);
  if (!shape.atomic) {
    request->wr.rdma.remote_addr = address;
    request->wr.rdma.rkey = rkey;
    return true;
  }
  if (address % 8 != 0) return Malformed(defect, "remoteAddress", "must be a multiple of 8");
  request->wr.atomic.remote_addr = address;
  request->wr.atomic.rkey = rkey;
  if (!Whole(columns.compare_add.Read(row), &request->wr.atomic.compare_add)) {
    return Malformed(defect, "compareAdd", kNotWhole);
  }
  if (request->opcode == IBV_WR_ATOMIC_CMP_AND_SWP &&
      !Whole(columns.swap.Read(row), &request->wr.atomic.swap)) {
    return Malformed(defect, "swap", kNotWhole);
  }
  return true;
}

bool ReadDestination(const SendColumns& columns, uint32_t row, QueuePair& pair, SendChain* chain,
                     ibv_send_wr* request, Defect* defect) {
  auto handle = pair.domain().address_handles.Find(columns.address_handle.Read(row));
  if (handle == nullptr) {
    return Malformed(defect, "addressHandle", "must be the id of an open address handle");
  }
  request->wr.ud.ah = handle->get();
  request->wr.ud.remote_qpn = columns.remote_qpn.Read(row);
  request->wr.ud.remote_qkey = columns.remote_qkey.Read(row);
  chain->Keep(std::move(handle));
  return true;
}

bool ReadSend(const SendColumns& columns, uint32_t row, QueuePair& pair, SendChain* chain,
              ibv_send_wr* request, ibv_sge* range, Defect* defect) {
  const uint8_t opcode = columns.opcode.Read(row);
  const Shape shape = ShapeOf(opcode);
  const bool datagram = pair.get()->qp_type == IBV_QPT_UD;
  if (!shape.known || (datagram && !shape.datagram)) {
    return Malformed(defect, "opcode", "must be one that the queue pair has");
  }
  request->opcode = static_cast<ibv_wr_opcode>(opcode);
  request->send_flags = columns.flags.Read(row);
  if ((request->send_flags & ~kSendFlags) != 0) {
    return Malformed(defect, "flags", "must be of SendFlag");
  }
  if (!Whole(columns.wr_id.Read(row), &request->wr_id)) return Malformed(defect, "wrId", kNotWhole);
  if (shape.local) {
    if (!ReadRange(columns.address, columns.length, columns.lkey, row, range, defect)) return false;
    if (shape.atomic && range->length != 8) return Malformed(defect, "length", "must be 8");
    // To some devices a length of 0 in a range means 2^31.
    request->num_sge = range->length == 0 ? 0 : 1;
    request->sg_list = range;
    if ((request->send_flags & IBV_SEND_INLINE) != 0) {
      if (shape.atomic || opcode == IBV_WR_RDMA_READ) {
        return Malformed(defect, "flags", "must not have INLINE where data comes in");
      }
      if (range->length != 0 && !ResolveInline(pair, chain, range, defect)) return false;
    }
  } else {
    request->send_flags &= ~static_cast<unsigned>(IBV_SEND_INLINE);
  }
  switch (opcode) {
    case IBV_WR_RDMA_WRITE_WITH_IMM:
    case IBV_WR_SEND_WITH_IMM:
      request->imm_data = htobe32(columns.immediate.Read(row));
      break;
    case IBV_WR_SEND_WITH_INV:
    case IBV_WR_LOCAL_INV:
      request->invalidate_rkey = columns.rkey.Read(row);
      break;
    default:
      break;
  }
  if (shape.remote) return ReadRemote(columns, row, shape, request, defect);
  if (datagram) return ReadDestination(columns, row, pair, chain, request, defect);
  return true;
}

}  // namespace

bool AddSend(const SendColumns& columns, uint32_t row, QueuePair& pair, SendChain* chain,
             Defect* defect) {
  ibv_send_wr& request = chain->Add();
  if (ReadSend(columns, row, pair, chain, &request, &chain->Range(request), defect)) return true;
  chain->Drop();
  return false;
}

bool ReadReceive(const ReceiveColumns& columns, uint32_t row, ibv_recv_wr* request, ibv_sge* range,
                 Defect* defect) {
  *request = {};
  if (!Whole(columns.wr_id.Read(row), &request->wr_id)) return Malformed(defect, "wrId", kNotWhole);
  if (!ReadRange(columns.address, columns.length, columns.lkey, row, range, defect)) return false;
  request->num_sge = range->length == 0 ? 0 : 1;
  request->sg_list = range;
  return true;
}

}  // namespace p2pdma::verbs
