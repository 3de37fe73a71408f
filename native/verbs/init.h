// What addon.cc calls, one per file of this folder.
#pragma once

#include <napi.h>

namespace p2pdma::verbs {

void InitHandle(Napi::Env env, Napi::Object exports);
void InitDevice(Napi::Env env, Napi::Object exports);
void InitMemory(Napi::Env env, Napi::Object exports);
void InitWindow(Napi::Env env, Napi::Object exports);
void InitCompletion(Napi::Env env, Napi::Object exports);
void InitQueuePair(Napi::Env env, Napi::Object exports);
void InitModify(Napi::Env env, Napi::Object exports);
void InitReceive(Napi::Env env, Napi::Object exports);
void InitPost(Napi::Env env, Napi::Object exports);
void InitWork(Napi::Env env, Napi::Object exports);
void InitEvents(Napi::Env env, Napi::Object exports);
void InitColumns(Napi::Env env, Napi::Object exports);
void InitCm(Napi::Env env, Napi::Object exports);
void InitCmEvents(Napi::Env env, Napi::Object exports);

}  // namespace p2pdma::verbs
