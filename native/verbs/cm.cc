// Connecting by address: rdma_cm(7). Each call only begins something; what
// came of it is an event.
#include "cm.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <cstring>
#include <string>

#include "handle.h"
#include "qp_attr.h"
#include "support/args.h"
#include "support/function.h"
#include "support/syscall_job.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

Napi::Value Describe(Napi::Env env, std::shared_ptr<CmChannel> channel) {
  return Wrap(env, std::move(channel));
}

Napi::Value Describe(Napi::Env env, std::shared_ptr<CmId> id) {
  const double number = id->number();
  Napi::Object handle = Wrap(env, std::move(id));
  handle.Set("number", number);
  return handle;
}

namespace {

// A numeric address, of IPv4 or IPv6.
sockaddr_storage AddressArg(const Napi::CallbackInfo& info, size_t index, const char* name,
                            uint16_t port) {
  const std::string text = StringArg(info, index, name);
  sockaddr_storage storage = {};
  auto* const four = reinterpret_cast<sockaddr_in*>(&storage);
  auto* const six = reinterpret_cast<sockaddr_in6*>(&storage);
  if (inet_pton(AF_INET, text.c_str(), &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons(port);
  } else if (inet_pton(AF_INET6, text.c_str(), &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
  } else {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_VALUE",
                     std::string(name) + " must be a numeric IP address", name);
  }
  return storage;
}

uint16_t PortArg(const Napi::CallbackInfo& info, size_t index) {
  return static_cast<uint16_t>(Uint32Arg(info, index, "port", UINT16_MAX));
}

int Errno(int result) { return result == 0 ? 0 : -errno; }

sockaddr* Generic(sockaddr_storage* storage) { return reinterpret_cast<sockaddr*>(storage); }

// verbsCmCreate(): a promise of an event channel
Napi::Value CreateChannel(const Napi::CallbackInfo& info) {
  NeedRdma(info.Env());
  return StartMaking<CmChannel>(
      info.Env(), "rdma_create_event_channel", [](std::shared_ptr<CmChannel>* out) {
        rdma_event_channel* const channel = rdma.create_event_channel();
        const int error = Own(out, channel, rdma.destroy_event_channel, channel);
        if (error != 0) return error;
        const int flags = fcntl(channel->fd, F_GETFL);
        return fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) < 0 ? errno : 0;
      });
}

// verbsCmCreateId(channel): a promise of an id for reliable connections
Napi::Value CreateId(const Napi::CallbackInfo& info) {
  return StartMaking<CmId>(
      info.Env(), "rdma_create_id",
      [channel = Borrow<CmChannel>(info[0], "channel")](std::shared_ptr<CmId>* out) {
        rdma_cm_id* id = nullptr;
        if (rdma.create_id(channel->get(), &id, nullptr, RDMA_PS_TCP) != 0) return errno;
        return Own(out, id, rdma.destroy_id, channel.object(), id);
      });
}

// verbsCmBind(id, address, port): a promise; port 0: any
Napi::Value Bind(const Napi::CallbackInfo& info) {
  auto id = Borrow<CmId>(info[0], "id");
  const sockaddr_storage address = AddressArg(info, 1, "address", PortArg(info, 2));
  return StartSyscall(info.Env(), "rdma_bind_addr", [id = std::move(id), address] {
    sockaddr_storage copy = address;
    return Errno(rdma.bind_addr(id->get(), Generic(&copy)));
  });
}

// verbsCmListen(id, backlog): a promise
Napi::Value Listen(const Napi::CallbackInfo& info) {
  const auto backlog = static_cast<int>(Uint32Arg(info, 1, "backlog", INT32_MAX));
  return StartSyscall(info.Env(), "rdma_listen", [id = Borrow<CmId>(info[0], "id"), backlog] {
    return Errno(rdma.listen(id->get(), backlog));
  });
}

// verbsCmResolve(id, source | null, address, port, timeoutMs): a promise
Napi::Value Resolve(const Napi::CallbackInfo& info) {
  auto id = Borrow<CmId>(info[0], "id");
  const bool has_source = !info[1].IsNull();
  sockaddr_storage source = {};
  if (has_source) source = AddressArg(info, 1, "source", 0);
  const sockaddr_storage address = AddressArg(info, 2, "address", PortArg(info, 3));
  const auto timeout = static_cast<int>(Uint32Arg(info, 4, "timeoutMs", INT32_MAX));
  return StartSyscall(info.Env(), "rdma_resolve_addr", [=, id = std::move(id)] {
    sockaddr_storage from = source;
    sockaddr_storage to = address;
    return Errno(
        rdma.resolve_addr(id->get(), has_source ? Generic(&from) : nullptr, Generic(&to), timeout));
  });
}

// verbsCmResolveRoute(id, timeoutMs): a promise
Napi::Value ResolveRoute(const Napi::CallbackInfo& info) {
  const auto timeout = static_cast<int>(Uint32Arg(info, 1, "timeoutMs", INT32_MAX));
  return StartSyscall(info.Env(), "rdma_resolve_route",
                      [id = Borrow<CmId>(info[0], "id"), timeout] {
                        return Errno(rdma.resolve_route(id->get(), timeout));
                      });
}

// At most 196 bytes of it reach the peer of a connection request (rdma_connect(3): 56 over
// InfiniBand and RoCE); the kernel says EINVAL to more than it takes.
std::string DataArg(const Napi::CallbackInfo& info, size_t index) {
  if (!info[index].IsTypedArray() ||
      info[index].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw CodedError(info.Env(), "ERR_INVALID_ARG_TYPE", "privateData must be a Uint8Array",
                     "privateData");
  }
  const auto bytes = info[index].As<Napi::Uint8Array>();
  if (bytes.ByteLength() > UINT8_MAX) {
    throw CodedError(info.Env(), "ERR_OUT_OF_RANGE", "privateData must be at most 255 bytes",
                     "privateData");
  }
  return std::string(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength());
}

struct ConnectRequest {
  Lease<CmId> id;
  std::string data;
  rdma_conn_param param = {};

  // (id, qpNumber, hasSrq, privateData, responderResources, initiatorDepth, retryCount,
  // rnrRetryCount)
  explicit ConnectRequest(const Napi::CallbackInfo& info)
      : id(Borrow<CmId>(info[0], "id")), data(DataArg(info, 3)) {
    const auto byte = [&](size_t index, const char* name, uint32_t max) {
      return static_cast<uint8_t>(Uint32Arg(info, index, name, max));
    };
    param.qp_num = Uint32Arg(info, 1, "qpNumber", 0xffffff);
    param.srq = BoolArg(info, 2, "hasSrq") ? 1 : 0;
    param.responder_resources = byte(4, "responderResources", UINT8_MAX);
    param.initiator_depth = byte(5, "initiatorDepth", UINT8_MAX);
    param.retry_count = byte(6, "retryCount", 7);
    param.rnr_retry_count = byte(7, "rnrRetryCount", 7);
  }

  int Run(int (*call)(rdma_cm_id*, rdma_conn_param*)) const {
    rdma_conn_param copy = param;
    copy.private_data = data.empty() ? nullptr : data.data();
    copy.private_data_len = static_cast<uint8_t>(data.size());
    return Errno(call(id->get(), &copy));
  }
};

// verbsCmConnect(...): a promise
Napi::Value Connect(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), "rdma_connect",
                      [request = ConnectRequest(info)] { return request.Run(rdma.connect); });
}

// verbsCmAccept(...): a promise
Napi::Value Accept(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), "rdma_accept",
                      [request = ConnectRequest(info)] { return request.Run(rdma.accept); });
}

// verbsCmEstablish(id): a promise; after a response, once the queue pair can send
Napi::Value Establish(const Napi::CallbackInfo& info) {
  return StartSyscall(
      info.Env(), "rdma_establish",
      [id = Borrow<CmId>(info[0], "id"), establish = Newer(info.Env(), rdma.establish)] {
        return Errno(establish(id->get()));
      });
}

// verbsCmReject(id, privateData): a promise
Napi::Value Reject(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), "rdma_reject",
                      [id = Borrow<CmId>(info[0], "id"), data = DataArg(info, 1)] {
                        return Errno(rdma.reject(id->get(), data.empty() ? nullptr : data.data(),
                                                 static_cast<uint8_t>(data.size())));
                      });
}

// verbsCmDisconnect(id): a promise
Napi::Value Disconnect(const Napi::CallbackInfo& info) {
  return StartSyscall(info.Env(), "rdma_disconnect", [id = Borrow<CmId>(info[0], "id")] {
    return Errno(rdma.disconnect(id->get()));
  });
}

// verbsCmInitQpAttr(id, qpState): what to modify the queue pair by, to get it there
Napi::Value InitQpAttr(const Napi::CallbackInfo& info) {
  const auto id = Use<CmId>(info[0], "id");
  const auto init = Newer(info.Env(), rdma.init_qp_attr);
  ibv_qp_attr attr = {};
  attr.qp_state = static_cast<ibv_qp_state>(Uint32Arg(info, 1, "qpState", IBV_QPS_ERR));
  int mask = 0;
  if (init(id->get(), &attr, &mask) != 0) {
    throw SystemError(info.Env(), errno, "rdma_init_qp_attr");
  }
  return QpAttrObject(info.Env(), attr, mask);
}

void SetAddress(Napi::Object result, const char* name, const char* port_name, const sockaddr* from,
                __be16 port) {
  char text[INET6_ADDRSTRLEN] = "";
  if (from->sa_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(from)->sin_addr, text, sizeof(text));
  } else if (from->sa_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(from)->sin6_addr, text,
              sizeof(text));
  }
  result.Set(name, text);
  result.Set(port_name, static_cast<double>(ntohs(port)));
}

// verbsCmInfo(id): {device, port, localAddress, localPort, peerAddress, peerPort};
// no device before one is resolved to
Napi::Value Info(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto id = Use<CmId>(info[0], "id");
  rdma_cm_id* const raw = id->get();
  Napi::Object result = Napi::Object::New(env);
  result.Set(
      "device",
      raw->verbs == nullptr
          ? env.Null()
          : Napi::String::New(env, ibv.get_device_name(raw->verbs->device)).As<Napi::Value>());
  result.Set("port", static_cast<double>(raw->port_num));
  SetAddress(result, "localAddress", "localPort", rdma_get_local_addr(raw), rdma.get_src_port(raw));
  SetAddress(result, "peerAddress", "peerPort", rdma_get_peer_addr(raw), rdma.get_dst_port(raw));
  return result;
}

}  // namespace

void InitCm(Napi::Env, Napi::Object exports) {
  Export<CreateChannel>(exports, "verbsCmCreate");
  Export<CreateId>(exports, "verbsCmCreateId");
  Export<Bind>(exports, "verbsCmBind");
  Export<Listen>(exports, "verbsCmListen");
  Export<Resolve>(exports, "verbsCmResolve");
  Export<ResolveRoute>(exports, "verbsCmResolveRoute");
  Export<Connect>(exports, "verbsCmConnect");
  Export<Accept>(exports, "verbsCmAccept");
  Export<Establish>(exports, "verbsCmEstablish");
  Export<Reject>(exports, "verbsCmReject");
  Export<Disconnect>(exports, "verbsCmDisconnect");
  Export<InitQpAttr>(exports, "verbsCmInitQpAttr");
  Export<Info>(exports, "verbsCmInfo");
}

}  // namespace p2pdma::verbs
