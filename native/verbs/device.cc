// Devices: ibv_get_device_list(3), ibv_query_device_ex(3), ibv_query_port(3),
// ibv_query_gid_table(3).
#include <endian.h>
#include <errno.h>

#include <cstring>
#include <string>
#include <vector>

#include "handle.h"
#include "objects.h"
#include "support/args.h"
#include "support/function.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

Napi::Value Describe(Napi::Env env, std::shared_ptr<Device> device) {
  return Wrap(env, std::move(device));
}

Napi::Value Describe(Napi::Env env, std::shared_ptr<ProtectionDomain> domain) {
  return Wrap(env, std::move(domain));
}

namespace {

struct DeviceList {
  int count = 0;
  ibv_device** const list = ibv.get_device_list(&count);
  ~DeviceList() {
    if (list != nullptr) ibv.free_device_list(list);
  }
};

Napi::Value Guid(Napi::Env env, __be64 guid) {
  return Napi::BigInt::New(env, static_cast<uint64_t>(be64toh(guid)));
}

// verbsDevices(): [{name, guid, nodeType, transport}]
Napi::Value Devices(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  NeedIbv(env);
  const DeviceList devices;
  if (devices.list == nullptr) throw SystemError(env, errno, "ibv_get_device_list");
  Napi::Array result = Napi::Array::New(env);
  for (int i = 0; i < devices.count; ++i) {
    ibv_device* const device = devices.list[i];
    Napi::Object each = Napi::Object::New(env);
    each.Set("name", ibv.get_device_name(device));
    each.Set("guid", Guid(env, ibv.get_device_guid(device)));
    each.Set("nodeType", static_cast<double>(device->node_type));
    each.Set("transport", static_cast<double>(device->transport_type));
    result.Set(static_cast<uint32_t>(i), each);
  }
  return result;
}

// verbsOpen(name): a promise of a device; ENODEV where there is none of that name
Napi::Value Open(const Napi::CallbackInfo& info) {
  NeedIbv(info.Env());
  return StartMaking<Device>(info.Env(), "ibv_open_device",
                             [name = StringArg(info, 0, "name")](std::shared_ptr<Device>* out) {
                               const DeviceList devices;
                               if (devices.list == nullptr) return errno;
                               for (int i = 0; i < devices.count; ++i) {
                                 if (name != ibv.get_device_name(devices.list[i])) continue;
                                 errno = 0;
                                 ibv_context* const context = ibv.open_device(devices.list[i]);
                                 return Own(out, context, ibv.close_device, context);
                               }
                               return ENODEV;
                             });
}

Napi::Object OdpOf(Napi::Env env, const ibv_device_attr_ex& attr) {
  Napi::Object odp = Napi::Object::New(env);
  odp.Set("general", static_cast<double>(attr.odp_caps.general_caps));
  odp.Set("rc", static_cast<double>(attr.odp_caps.per_transport_caps.rc_odp_caps));
  odp.Set("uc", static_cast<double>(attr.odp_caps.per_transport_caps.uc_odp_caps));
  odp.Set("ud", static_cast<double>(attr.odp_caps.per_transport_caps.ud_odp_caps));
  odp.Set("xrc", static_cast<double>(attr.xrc_odp_caps));
  return odp;
}

// verbsQueryDevice(device)
Napi::Value QueryDevice(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = Use<Device>(info[0], "device");
  ibv_device_attr_ex extended = {};
  const int error = ibv_query_device_ex(device->get(), nullptr, &extended);
  if (error != 0) throw SystemError(env, error, "ibv_query_device_ex");
  const ibv_device_attr& attr = extended.orig_attr;
  Napi::Object result = Napi::Object::New(env);
  result.Set("firmware", std::string(attr.fw_ver, strnlen(attr.fw_ver, sizeof(attr.fw_ver))));
  result.Set("nodeGuid", Guid(env, attr.node_guid));
  result.Set("systemImageGuid", Guid(env, attr.sys_image_guid));
  const auto number = [&](const char* name, auto value) {
    result.Set(name, static_cast<double>(value));
  };
  number("maxMrSize", attr.max_mr_size);
  result.Set("pageSizes", Napi::BigInt::New(env, attr.page_size_cap));
  number("vendorId", attr.vendor_id);
  number("vendorPartId", attr.vendor_part_id);
  number("hardwareVersion", attr.hw_ver);
  number("maxQp", attr.max_qp);
  number("maxQpWr", attr.max_qp_wr);
  result.Set("capabilities", Napi::BigInt::New(env, extended.device_cap_flags_ex != 0
                                                        ? extended.device_cap_flags_ex
                                                        : uint64_t{attr.device_cap_flags}));
  number("maxSge", attr.max_sge);
  number("maxCq", attr.max_cq);
  number("maxCqe", attr.max_cqe);
  number("maxMr", attr.max_mr);
  number("maxPd", attr.max_pd);
  number("maxQpRdAtomic", attr.max_qp_rd_atom);
  number("maxQpInitRdAtomic", attr.max_qp_init_rd_atom);
  number("atomicity", attr.atomic_cap);
  number("maxMw", attr.max_mw);
  number("maxAh", attr.max_ah);
  number("maxSrq", attr.max_srq);
  number("maxSrqWr", attr.max_srq_wr);
  number("maxPkeys", attr.max_pkeys);
  number("ports", attr.phys_port_cnt);
  result.Set("odp", OdpOf(env, extended));
  return result;
}

// verbsQueryPort(device, port)
Napi::Value QueryPort(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = Use<Device>(info[0], "device");
  const auto port = static_cast<uint8_t>(Uint32Arg(info, 1, "port", UINT8_MAX));
  ibv_port_attr attr = {};
  const int error = ibv_query_port(device->get(), port, &attr);
  if (error != 0) throw SystemError(env, error, "ibv_query_port");
  Napi::Object result = Napi::Object::New(env);
  const auto number = [&](const char* name, auto value) {
    result.Set(name, static_cast<double>(value));
  };
  number("state", attr.state);
  number("physicalState", attr.phys_state);
  number("maxMtu", attr.max_mtu);
  number("activeMtu", attr.active_mtu);
  number("linkLayer", attr.link_layer);
  number("lid", attr.lid);
  number("gidTableLength", attr.gid_tbl_len);
  number("pkeyTableLength", attr.pkey_tbl_len);
  number("maxMessageSize", attr.max_msg_sz);
  number("activeWidth", attr.active_width);
  number("activeSpeed", attr.active_speed);
  return result;
}

constexpr size_t kMostGids = 1 << 16;

// verbsQueryGids(device): [{gid: Buffer of 16 bytes, index, port, type, interface}]
Napi::Value QueryGids(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto device = Use<Device>(info[0], "device");
  const auto query = Newer(env, ibv.query_gid_table);
  std::vector<ibv_gid_entry> entries(64);
  ssize_t count = 0;
  for (;;) {
    count = query(device->get(), entries.data(), entries.size(), 0, sizeof(ibv_gid_entry));
    if (count < 0) throw SystemError(env, static_cast<int>(-count), "ibv_query_gid_table");
    if (static_cast<size_t>(count) < entries.size()) break;
    // 255 ports of 256 entries: then it is a provider that fills whatever it is given.
    if (entries.size() >= kMostGids) throw SystemError(env, EOVERFLOW, "ibv_query_gid_table");
    entries.resize(entries.size() * 2);
  }
  Napi::Array result = Napi::Array::New(env);
  for (uint32_t i = 0; i < static_cast<uint32_t>(count); ++i) {
    Napi::Object each = Napi::Object::New(env);
    each.Set("gid", Napi::Buffer<uint8_t>::Copy(env, entries[i].gid.raw, 16));
    each.Set("index", static_cast<double>(entries[i].gid_index));
    each.Set("port", static_cast<double>(entries[i].port_num));
    each.Set("type", static_cast<double>(entries[i].gid_type));
    each.Set("interface", static_cast<double>(entries[i].ndev_ifindex));
    result.Set(i, each);
  }
  return result;
}

// verbsAllocPd(device): a promise
Napi::Value AllocPd(const Napi::CallbackInfo& info) {
  return StartMaking<ProtectionDomain>(
      info.Env(), "ibv_alloc_pd",
      [device = Borrow<Device>(info[0], "device")](std::shared_ptr<ProtectionDomain>* out) {
        ibv_pd* const pd = ibv.alloc_pd(device->get());
        return Own(out, pd, ibv.dealloc_pd, device.object(), pd);
      });
}

}  // namespace

void InitDevice(Napi::Env, Napi::Object exports) {
  Export<Devices>(exports, "verbsDevices");
  Export<Open>(exports, "verbsOpen");
  Export<QueryDevice>(exports, "verbsQueryDevice");
  Export<QueryPort>(exports, "verbsQueryPort");
  Export<QueryGids>(exports, "verbsQueryGids");
  Export<AllocPd>(exports, "verbsAllocPd");
}

}  // namespace p2pdma::verbs
