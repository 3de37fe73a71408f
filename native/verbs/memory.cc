// Memory regions: ibv_reg_mr(3), ibv_reg_dmabuf_mr(3), ibv_advise_mr(3).
#include <errno.h>

#include <utility>

#include "fd.h"
#include "handle.h"
#include "ioctl.h"
#include "mapping.h"
#include "objects.h"
#include "support/args.h"
#include "support/function.h"
#include "support/syscall_job.h"
#include "verbs/init.h"

namespace p2pdma::verbs {

MemoryRegion::MemoryRegion(std::shared_ptr<ProtectionDomain> domain, ibv_mr* mr, uint64_t iova,
                           std::shared_ptr<MappedRange> range, const std::byte* data)
    : Object(kKind, {domain}),
      domain_(std::move(domain)),
      mr_(mr),
      handle_(mr->handle),
      lkey_(mr->lkey),
      rkey_(mr->rkey),
      iova_(iova),
      length_(mr->length),
      range_(std::move(range)),
      data_(data) {}

MemoryRegion::MemoryRegion(std::shared_ptr<ProtectionDomain> domain, uint32_t handle, uint32_t lkey,
                           uint32_t rkey, uint64_t iova, size_t length)
    : Object(kKind, {domain}),
      domain_(std::move(domain)),
      mr_(nullptr),
      handle_(handle),
      lkey_(lkey),
      rkey_(rkey),
      iova_(iova),
      length_(length),
      data_(nullptr) {}

const std::byte* MemoryRegion::Data(uint64_t address, size_t length) const {
  if (data_ == nullptr || range_ == nullptr || range_->device) return nullptr;
  if (address < iova_ || address - iova_ > length_ || length > length_ - (address - iova_)) {
    return nullptr;
  }
  return data_ + (address - iova_);
}

int MemoryRegion::Destroy() {
  Device& device = domain_->device();
  const int error = mr_ != nullptr ? ibv.dereg_mr(mr_)
                                   : IoctlDeregister(device.DriverId(), device.get(), handle_);
  if (error != 0) return error;
  // While a finalizer's reaper gets here, the number may have been given to another.
  if (data_ != nullptr) domain_->memory_regions.Remove(lkey_);
  domain_ = nullptr;
  // The device is done with it: now the addresses may be used again.
  range_ = nullptr;
  return 0;
}

Napi::Value Describe(Napi::Env env, std::shared_ptr<MemoryRegion> region) {
  if (region->Data(region->iova(), 0) != nullptr) {
    region->domain()->memory_regions.Add(region->lkey(), region);
  }
  const uint32_t lkey = region->lkey();
  const uint32_t rkey = region->rkey();
  const uint64_t iova = region->iova();
  Napi::Object handle = Wrap(env, std::move(region));
  handle.Set("lkey", static_cast<double>(lkey));
  handle.Set("rkey", static_cast<double>(rkey));
  handle.Set("iova", static_cast<double>(iova));
  return handle;
}

namespace {

// The device's name for "wherever the CPU has it".
constexpr double kSameAddress = -1;

// (pd, mapping, offset, length, iova, access); iova -1: the CPU's own address
Making<MemoryRegion> RegisterArgs(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto domain = Borrow<ProtectionDomain>(info[0], "pd");
  auto range = UnwrapMapping(info[1]);
  const uint64_t offset = UintArg(info, 2, "offset");
  const uint64_t length = UintArg(info, 3, "length");
  const bool same = info[4].IsNumber() && info[4].As<Napi::Number>().DoubleValue() == kSameAddress;
  const uint32_t access = Uint32Arg(info, 5, "access");
  if (!range->Contains(offset, length)) {
    throw CodedError(env, "ERR_OUT_OF_RANGE", "the range must lie inside the mapping", "length");
  }
  std::byte* const data = range->data + offset;
  const uint64_t iova = same ? reinterpret_cast<uintptr_t>(data) : UintArg(info, 4, "iova");
  return [=, domain = std::move(domain), range = std::move(range),
          reg = Newer(env, ibv.reg_mr_iova2)](std::shared_ptr<MemoryRegion>* out) {
    ibv_mr* const mr = reg(domain->get(), data, length, iova, access);
    return Own(out, mr, ibv.dereg_mr, domain.object(), mr, iova, range, data);
  };
}

// verbsRegister(...): a promise
Napi::Value Register(const Napi::CallbackInfo& info) {
  return StartMaking<MemoryRegion>(info.Env(), "ibv_reg_mr_iova2", RegisterArgs(info));
}

// verbsRegisterNow(...): on the event loop
Napi::Value RegisterNow(const Napi::CallbackInfo& info) {
  return MakeNow<MemoryRegion>(info.Env(), "ibv_reg_mr_iova2", RegisterArgs(info));
}

// (pd, fd, offset, length, iova, access, kernel): `kernel`: by the ioctl
Making<MemoryRegion> DmabufArgs(const Napi::CallbackInfo& info) {
  auto domain = Borrow<ProtectionDomain>(info[0], "pd");
  auto fd = UnwrapFd(info[1]);
  const uint64_t offset = UintArg(info, 2, "offset");
  const uint64_t length = UintArg(info, 3, "length");
  const uint64_t iova = UintArg(info, 4, "iova");
  const uint32_t access = Uint32Arg(info, 5, "access");
  if (BoolArg(info, 6, "kernel")) {
    return [=, domain = std::move(domain), fd = std::move(fd)](std::shared_ptr<MemoryRegion>* out) {
      KernelRegion region = {};
      const int error = IoctlRegisterDmabuf(domain->device().DriverId(), domain->get(), offset,
                                            length, iova, fd->get(), access, &region);
      if (error != 0) return error;
      const auto undo = [&](KernelRegion* made) {
        Device& device = domain->device();
        return IoctlDeregister(device.DriverId(), device.get(), made->handle);
      };
      return Own(out, &region, undo, domain.object(), region.handle, region.lkey, region.rkey, iova,
                 length);
    };
  }
  return [=, domain = std::move(domain), fd = std::move(fd),
          reg = Newer(info.Env(), ibv.reg_dmabuf_mr)](std::shared_ptr<MemoryRegion>* out) {
    ibv_mr* const mr =
        reg(domain->get(), offset, length, iova, fd->get(), static_cast<int>(access));
    return Own(out, mr, ibv.dereg_mr, domain.object(), mr, iova, nullptr, nullptr);
  };
}

const char* DmabufCall(const Napi::CallbackInfo& info) {
  return BoolArg(info, 6, "kernel") ? "ioctl UVERBS_METHOD_REG_DMABUF_MR" : "ibv_reg_dmabuf_mr";
}

// verbsRegisterDmabuf(...): a promise
Napi::Value RegisterDmabuf(const Napi::CallbackInfo& info) {
  return StartMaking<MemoryRegion>(info.Env(), DmabufCall(info), DmabufArgs(info));
}

// verbsRegisterDmabufNow(...): on the event loop
Napi::Value RegisterDmabufNow(const Napi::CallbackInfo& info) {
  return MakeNow<MemoryRegion>(info.Env(), DmabufCall(info), DmabufArgs(info));
}

// verbsAdvise(mr, address, length, advice, flags, kernel): a promise
Napi::Value Advise(const Napi::CallbackInfo& info) {
  auto region = Borrow<MemoryRegion>(info[0], "mr");
  ibv_sge range = {};
  range.addr = UintArg(info, 1, "address");
  range.length = Uint32Arg(info, 2, "length");
  range.lkey = region->lkey();
  const uint32_t advice = Uint32Arg(info, 3, "advice");
  const uint32_t flags = Uint32Arg(info, 4, "flags");
  const bool kernel = BoolArg(info, 5, "kernel");
  return StartSyscall(
      info.Env(), kernel ? "ioctl UVERBS_METHOD_ADVISE_MR" : "ibv_advise_mr",
      [=, region = std::move(region)]() mutable {
        ibv_pd* const pd = region->domain()->get();
        if (kernel)
          return -IoctlAdvise(region->domain()->device().DriverId(), pd, advice, flags, range);
        return -ibv_advise_mr(pd, static_cast<ibv_advise_mr_advice>(advice), flags, &range, 1);
      });
}

}  // namespace

void InitMemory(Napi::Env, Napi::Object exports) {
  Export<Register>(exports, "verbsRegister");
  Export<RegisterNow>(exports, "verbsRegisterNow");
  Export<RegisterDmabuf>(exports, "verbsRegisterDmabuf");
  Export<RegisterDmabufNow>(exports, "verbsRegisterDmabufNow");
  Export<Advise>(exports, "verbsAdvise");
}

}  // namespace p2pdma::verbs
