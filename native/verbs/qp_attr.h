// ibv_qp_attr and ibv_ah_attr as JavaScript objects and back. A property that
// is there sets its bit of the mask; one that is not, does not.
#pragma once

#include <infiniband/verbs.h>
#include <napi.h>

namespace p2pdma::verbs {

int ReadQpAttr(const Napi::Object& object, ibv_qp_attr* attr);
// Those fields that the mask has.
Napi::Object QpAttrObject(Napi::Env env, const ibv_qp_attr& attr, int mask);

void ReadAhAttr(const Napi::Object& object, ibv_ah_attr* attr);
Napi::Object AhAttrObject(Napi::Env env, const ibv_ah_attr& attr);

}  // namespace p2pdma::verbs
