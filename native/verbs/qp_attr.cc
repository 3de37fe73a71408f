#include "qp_attr.h"

#include <cmath>
#include <cstring>
#include <string>

#include "support/error.h"

namespace p2pdma::verbs {

namespace {

// A number of an object, from 0 to `max`; false where it has none of that name.
bool Field(const Napi::Object& object, const char* name, uint32_t max, uint32_t* out) {
  const Napi::Value value = object.Get(name);
  if (value.IsUndefined()) return false;
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : NAN;
  if (!(number >= 0) || number != std::floor(number) || number > max) {
    throw CodedError(object.Env(), value.IsNumber() ? "ERR_OUT_OF_RANGE" : "ERR_INVALID_ARG_TYPE",
                     std::string(name) + " must be a whole number from 0 to " + std::to_string(max),
                     name);
  }
  *out = static_cast<uint32_t>(number);
  return true;
}

template <typename T>
void Take(const Napi::Object& object, const char* name, uint32_t max, T* out) {
  uint32_t value = 0;
  if (Field(object, name, max, &value)) *out = static_cast<T>(value);
}

struct QpField {
  const char* name;
  int mask;
  uint32_t max;
  void (*set)(ibv_qp_attr*, uint32_t);
  uint32_t (*get)(const ibv_qp_attr&);
};

#define P2PDMA_QP_FIELD(name, mask, max, member)                                               \
  {                                                                                            \
    name, mask, max,                                                                           \
        [](ibv_qp_attr* attr, uint32_t value) {                                                \
          attr->member = static_cast<decltype(attr->member)>(value);                           \
        },                                                                                     \
        [](const ibv_qp_attr& attr) -> uint32_t { return static_cast<uint32_t>(attr.member); } \
  }

constexpr QpField kFields[] = {
    P2PDMA_QP_FIELD("qpState", IBV_QP_STATE, IBV_QPS_ERR, qp_state),
    P2PDMA_QP_FIELD("curQpState", IBV_QP_CUR_STATE, IBV_QPS_ERR, cur_qp_state),
    P2PDMA_QP_FIELD("enSqdAsyncNotify", IBV_QP_EN_SQD_ASYNC_NOTIFY, 1, en_sqd_async_notify),
    P2PDMA_QP_FIELD("qpAccessFlags", IBV_QP_ACCESS_FLAGS, UINT32_MAX, qp_access_flags),
    P2PDMA_QP_FIELD("pkeyIndex", IBV_QP_PKEY_INDEX, UINT16_MAX, pkey_index),
    P2PDMA_QP_FIELD("portNum", IBV_QP_PORT, UINT8_MAX, port_num),
    P2PDMA_QP_FIELD("qkey", IBV_QP_QKEY, UINT32_MAX, qkey),
    P2PDMA_QP_FIELD("pathMtu", IBV_QP_PATH_MTU, IBV_MTU_4096, path_mtu),
    P2PDMA_QP_FIELD("timeout", IBV_QP_TIMEOUT, 31, timeout),
    P2PDMA_QP_FIELD("retryCnt", IBV_QP_RETRY_CNT, 7, retry_cnt),
    P2PDMA_QP_FIELD("rnrRetry", IBV_QP_RNR_RETRY, 7, rnr_retry),
    P2PDMA_QP_FIELD("rqPsn", IBV_QP_RQ_PSN, 0xffffff, rq_psn),
    P2PDMA_QP_FIELD("maxRdAtomic", IBV_QP_MAX_QP_RD_ATOMIC, UINT8_MAX, max_rd_atomic),
    P2PDMA_QP_FIELD("minRnrTimer", IBV_QP_MIN_RNR_TIMER, 31, min_rnr_timer),
    P2PDMA_QP_FIELD("sqPsn", IBV_QP_SQ_PSN, 0xffffff, sq_psn),
    P2PDMA_QP_FIELD("maxDestRdAtomic", IBV_QP_MAX_DEST_RD_ATOMIC, UINT8_MAX, max_dest_rd_atomic),
    P2PDMA_QP_FIELD("destQpNum", IBV_QP_DEST_QPN, 0xffffff, dest_qp_num),
};

#undef P2PDMA_QP_FIELD

}  // namespace

int ReadQpAttr(const Napi::Object& object, ibv_qp_attr* attr) {
  int mask = 0;
  for (const QpField& field : kFields) {
    uint32_t value = 0;
    if (!Field(object, field.name, field.max, &value)) continue;
    field.set(attr, value);
    mask |= field.mask;
  }
  const Napi::Value path = object.Get("ahAttr");
  if (path.IsObject()) {
    ReadAhAttr(path.As<Napi::Object>(), &attr->ah_attr);
    mask |= IBV_QP_AV;
  }
  return mask;
}

Napi::Object QpAttrObject(Napi::Env env, const ibv_qp_attr& attr, int mask) {
  Napi::Object result = Napi::Object::New(env);
  for (const QpField& field : kFields) {
    if ((mask & field.mask) != 0) result.Set(field.name, static_cast<double>(field.get(attr)));
  }
  if ((mask & IBV_QP_AV) != 0) result.Set("ahAttr", AhAttrObject(env, attr.ah_attr));
  return result;
}

void ReadAhAttr(const Napi::Object& object, ibv_ah_attr* attr) {
  Take(object, "dlid", UINT16_MAX, &attr->dlid);
  Take(object, "sl", 15, &attr->sl);
  Take(object, "srcPathBits", 127, &attr->src_path_bits);
  Take(object, "staticRate", UINT8_MAX, &attr->static_rate);
  Take(object, "portNum", UINT8_MAX, &attr->port_num);
  Take(object, "flowLabel", 0xfffff, &attr->grh.flow_label);
  Take(object, "sgidIndex", UINT8_MAX, &attr->grh.sgid_index);
  Take(object, "hopLimit", UINT8_MAX, &attr->grh.hop_limit);
  Take(object, "trafficClass", UINT8_MAX, &attr->grh.traffic_class);
  const Napi::Value gid = object.Get("dgid");
  if (gid.IsUndefined()) return;
  if (!gid.IsTypedArray() || gid.As<Napi::TypedArray>().ByteLength() != 16 ||
      gid.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw CodedError(object.Env(), "ERR_INVALID_ARG_TYPE", "dgid must be 16 bytes", "dgid");
  }
  memcpy(attr->grh.dgid.raw, gid.As<Napi::Uint8Array>().Data(), 16);
  attr->is_global = 1;
}

Napi::Object AhAttrObject(Napi::Env env, const ibv_ah_attr& attr) {
  Napi::Object result = Napi::Object::New(env);
  const auto number = [&](const char* name, uint32_t value) {
    result.Set(name, static_cast<double>(value));
  };
  number("dlid", attr.dlid);
  number("sl", attr.sl);
  number("srcPathBits", attr.src_path_bits);
  number("staticRate", attr.static_rate);
  number("portNum", attr.port_num);
  if (attr.is_global != 0) {
    number("flowLabel", attr.grh.flow_label);
    number("sgidIndex", attr.grh.sgid_index);
    number("hopLimit", attr.grh.hop_limit);
    number("trafficClass", attr.grh.traffic_class);
    result.Set("dgid", Napi::Buffer<uint8_t>::Copy(env, attr.grh.dgid.raw, 16));
  }
  return result;
}

}  // namespace p2pdma::verbs
