// The one Python interpreter of this process, and the functions that zeroflaw.capi gives it.
#pragma once

#include <string>

#include "zeroflaw/zeroflaw.h"

namespace zeroflaw_library {

// Filled by zeroflaw.capi (runtime/zeroflaw/capi/connection.py holds the same list, in
// the same order). Every function takes the GIL by itself and may be called from any thread.
struct Functions {
  size_t struct_size;
  int32_t (*create)(const zeroflaw_config*, uint64_t*);
  int32_t (*create_from_file)(const char*, uint64_t*);
  int32_t (*clone)(uint64_t, uint64_t*);
  int32_t (*destroy)(uint64_t);
  int32_t (*warm_up)(uint64_t, int32_t);
  int32_t (*inspect)(uint64_t, const zeroflaw_frame*, uint64_t*);
  int32_t (*submit)(uint64_t, const zeroflaw_frame*, uint64_t*);
  int32_t (*poll)(uint64_t, double, uint64_t*);
  int32_t (*view)(uint64_t, zeroflaw_inspection_view*);
  int32_t (*release)(uint64_t);
  int32_t (*inspection_json)(uint64_t, char*, size_t, size_t*);
  int32_t (*describe)(uint64_t, char*, size_t, size_t*);
  int32_t (*health)(uint64_t, zeroflaw_health_report*);
  int32_t (*close_all)();
  int32_t (*frame_sha256)(uint64_t, const char**);
  int32_t (*before_fork)();
  int32_t (*after_fork)();
  int32_t (*reload)(uint64_t);
};

// Starts Python in the environment `home` (null: $ZEROFLAW_PYTHON_HOME) unless it runs already,
// and connects zeroflaw.capi. Returns "" or what is wrong and what to do about it.
std::string start_interpreter(const char* home);

// Whether this process is a fork of the one that runs Python, or was starting it. Then neither
// Python nor anything that takes a lock may be touched: a fork has its parent's memory and only the
// thread that forked, so what other threads had locked stays locked, and their work is never done.
bool in_a_fork();

// Null until start_interpreter has succeeded.
const Functions* functions();

// A call into Python on its way. Until the last has ended, the process's exit waits (for at most
// 30 s), and threads that Python did not make keep what Python remembers of them.
class Call {
 public:
  Call();
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;
  bool allowed() const { return allowed_; }

 private:
  bool allowed_;
};

bool shutting_down();


// The calling thread's error text, cut off after 2047 bytes.
void set_last_error(const char* text);
const char* last_error();

}  // namespace zeroflaw_library
