{
  'targets': [
    {
      'target_name': 'p2pdma',
      'sources': [
        'native/addon.cc',
        'native/dma_buf.cc',
        'native/dma_heap.cc',
        'native/drm.cc',
        'native/fd.cc',
        'native/mapping.cc',
        'native/memfd.cc',
        'native/memory_jobs.cc',
        'native/poll.cc',
        'native/sync_file.cc',
        'native/udmabuf.cc',
        'native/support/env_state.cc',
        'native/support/error.cc',
        'native/support/job.cc',
        'native/software/software.cc',
      ],
      'include_dirs': ['native'],
      'dependencies': ["<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except"],
      'defines': [
        'NAPI_VERSION=9',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
      ],
      'cflags': ['-Wall', '-Wextra', '-fvisibility=hidden'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20'],
      'cflags_cc': ['-std=c++20', '-D_GNU_SOURCE'],
    },
  ],
}
