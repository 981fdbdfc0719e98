// The C ABI: checks what only C can get wrong, and hands the rest to zeroflaw.capi.
#include "zeroflaw/zeroflaw.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <exception>

#include "interpreter.hpp"

using zeroflaw_library::Call;
using zeroflaw_library::Functions;
using zeroflaw_library::last_error;
using zeroflaw_library::set_last_error;

namespace {

zeroflaw_status fail(zeroflaw_status status, const std::string& text) {
  set_last_error(text.c_str());
  return status;
}

uint64_t number(const void* handle) { return reinterpret_cast<uintptr_t>(handle); }

// A null pointer where one is needed: its name; else null.
struct Argument {
  const char* name;
  const void* pointer;
};

zeroflaw_status require(std::initializer_list<Argument> arguments) {
  for (const Argument& argument : arguments)
    if (argument.pointer == nullptr)
      return fail(ZEROFLAW_INVALID_ARGUMENT, std::string(argument.name) +
                                                 " is a null pointer -- give the address of one");
  return ZEROFLAW_OK;
}

// `older` are the struct's sizes in older headers of this ABI, which older programs give.
template <typename Struct>
zeroflaw_status require_size(const char* name, const Struct* given,
                             std::initializer_list<size_t> older = {}) {
  const size_t size = given->struct_size;
  if (size == sizeof(Struct) || std::find(older.begin(), older.end(), size) != older.end())
    return ZEROFLAW_OK;
  std::string known;
  for (const size_t one : older) known += std::to_string(one) + " and ";
  known += std::to_string(sizeof(Struct));
  return fail(ZEROFLAW_STRUCT_SIZE,
              std::string(name) + "->struct_size is " + std::to_string(size) +
                  ", and this library knows " + known +
                  " -- set it to sizeof of the struct, and compile against this library's header");
}

constexpr size_t kOlderConfig = offsetof(zeroflaw_config, device);
constexpr size_t kOlderFrame = offsetof(zeroflaw_frame, camera_id);
constexpr size_t kFirstView = offsetof(zeroflaw_inspection_view, reason);
constexpr size_t kSecondView = offsetof(zeroflaw_inspection_view, reference);
constexpr size_t kThirdView = offsetof(zeroflaw_inspection_view, decision_score);
constexpr size_t kOlderHealth = offsetof(zeroflaw_health_report, held);

// Runs `call` with Python's functions, whatever happens inside.
template <typename Body>
zeroflaw_status guarded(Body&& body) noexcept {
  try {
    set_last_error("");
    return body();
  } catch (const std::exception& error) {
    try {
      return fail(ZEROFLAW_INTERNAL, std::string(error.what()) + " -- please report this");
    } catch (...) {
      return ZEROFLAW_INTERNAL;
    }
  } catch (...) {
    return ZEROFLAW_INTERNAL;
  }
}

// Zero but for the size, as far as the caller's struct reaches.
template <typename Struct>
void clear(Struct* given) {
  const size_t size = given->struct_size;
  std::memset(given, 0, size);
  given->struct_size = size;
}

zeroflaw_status closing() {
  return fail(ZEROFLAW_SHUTTING_DOWN, "the process is exiting -- nothing can be called any more");
}

zeroflaw_status forked() {
  return fail(ZEROFLAW_ENVIRONMENT,
              "this process is a fork of the one that runs Python for zeroflaw, and has none of its "
              "threads -- fork first and call zeroflaw_create in the child, or let the child exec");
}

template <typename Body>
zeroflaw_status in_python(Body&& body) {
  if (zeroflaw_library::in_a_fork()) return forked();
  const Functions* functions = zeroflaw_library::functions();
  if (functions == nullptr)
    return fail(ZEROFLAW_INVALID_HANDLE,
                "no inspector has been created in this process, so this handle is none -- call "
                "zeroflaw_create first");
  Call call;
  if (!call.allowed()) return closing();
  return body(*functions);
}

template <typename Body>
zeroflaw_status create(const char* python_home, zeroflaw_inspector* inspector, Body&& body) {
  if (zeroflaw_library::in_a_fork()) return forked();
  if (zeroflaw_library::shutting_down()) return closing();
  const std::string wrong = zeroflaw_library::start_interpreter(python_home);
  if (!wrong.empty()) return fail(ZEROFLAW_ENVIRONMENT, wrong);
  return in_python([&](const Functions& python) {
    uint64_t made = 0;
    const zeroflaw_status status = body(python, &made);
    *inspector = reinterpret_cast<zeroflaw_inspector>(static_cast<uintptr_t>(made));
    return status;
  });
}

zeroflaw_inspection inspection_handle(uint64_t made) {
  return reinterpret_cast<zeroflaw_inspection>(static_cast<uintptr_t>(made));
}

}  // namespace

#define REQUIRE(check) \
  if (const zeroflaw_status status_ = (check)) return status_

extern "C" {

const char* zeroflaw_version(void) { return ZEROFLAW_VERSION; }

const char* zeroflaw_status_text(zeroflaw_status status) {
  switch (status) {
    case ZEROFLAW_OK: return "ok";
    case ZEROFLAW_INVALID_ARGUMENT: return "invalid argument";
    case ZEROFLAW_STRUCT_SIZE: return "wrong struct_size";
    case ZEROFLAW_INVALID_HANDLE: return "invalid handle";
    case ZEROFLAW_ENVIRONMENT: return "unsuitable Python environment";
    case ZEROFLAW_CONFIGURATION: return "invalid configuration";
    case ZEROFLAW_BUNDLE: return "unusable bundle";
    case ZEROFLAW_BACKEND: return "backend not available";
    case ZEROFLAW_ENGINE: return "engine failure";
    case ZEROFLAW_FRAME: return "frame cannot be inspected";
    case ZEROFLAW_PRODUCT: return "unknown product";
    case ZEROFLAW_QUEUE_FULL: return "queue full";
    case ZEROFLAW_TIMEOUT: return "timeout";
    case ZEROFLAW_DEADLINE_MISSED: return "deadline missed";
    case ZEROFLAW_DROPPED: return "frame dropped";
    case ZEROFLAW_SHUTTING_DOWN: return "process exiting";
    case ZEROFLAW_BUFFER_TOO_SMALL: return "buffer too small";
    case ZEROFLAW_INTERNAL: return "internal error";
    case ZEROFLAW_HELD: return "frame held";
    default: return "unknown status";
  }
}

const char* zeroflaw_last_error(void) { return last_error(); }

zeroflaw_status zeroflaw_create(const zeroflaw_config* config, zeroflaw_inspector* inspector) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspector", inspector}}));
    *inspector = nullptr;
    const zeroflaw_config defaults = ZEROFLAW_CONFIG_INIT;
    const zeroflaw_config& chosen = config ? *config : defaults;
    REQUIRE(require_size("config", &chosen, {kOlderConfig}));
    return create(chosen.python_home, inspector, [&](const Functions& python, uint64_t* made) {
      return python.create(&chosen, made);
    });
  });
}

zeroflaw_status zeroflaw_create_from_file(const char* config_file, const char* python_home,
                                          zeroflaw_inspector* inspector) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"config_file", config_file}, {"inspector", inspector}}));
    *inspector = nullptr;
    return create(python_home, inspector, [&](const Functions& python, uint64_t* made) {
      return python.create_from_file(config_file, made);
    });
  });
}

zeroflaw_status zeroflaw_clone(zeroflaw_inspector inspector, zeroflaw_inspector* clone) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspector", inspector}, {"clone", clone}}));
    *clone = nullptr;
    return in_python([&](const Functions& python) {
      uint64_t made = 0;
      const zeroflaw_status status = python.clone(number(inspector), &made);
      *clone = reinterpret_cast<zeroflaw_inspector>(static_cast<uintptr_t>(made));
      return status;
    });
  });
}

zeroflaw_status zeroflaw_destroy(zeroflaw_inspector inspector) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspector", inspector}}));
    return in_python(
        [&](const Functions& python) { return python.destroy(number(inspector)); });
  });
}

zeroflaw_status zeroflaw_warm_up(zeroflaw_inspector inspector, int32_t runs) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspector", inspector}}));
    return in_python(
        [&](const Functions& python) { return python.warm_up(number(inspector), runs); });
  });
}

zeroflaw_status zeroflaw_reload(zeroflaw_inspector inspector) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspector", inspector}}));
    return in_python([&](const Functions& python) { return python.reload(number(inspector)); });
  });
}

zeroflaw_status zeroflaw_inspect(zeroflaw_inspector inspector, const zeroflaw_frame* frame,
                                 zeroflaw_inspection* inspection) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspection", inspection}}));
    *inspection = nullptr;
    REQUIRE(require({{"inspector", inspector}, {"frame", frame}}));
    REQUIRE(require_size("frame", frame, {kOlderFrame}));
    return in_python([&](const Functions& python) {
      uint64_t made = 0;
      const zeroflaw_status status = python.inspect(number(inspector), frame, &made);
      *inspection = inspection_handle(made);
      return status;
    });
  });
}

zeroflaw_status zeroflaw_submit(zeroflaw_inspector inspector, const zeroflaw_frame* frame,
                                uint64_t* ticket) {
  return guarded([&]() -> zeroflaw_status {
    uint64_t ignored = 0;
    uint64_t* given = ticket ? ticket : &ignored;
    *given = 0;
    REQUIRE(require({{"inspector", inspector}, {"frame", frame}}));
    REQUIRE(require_size("frame", frame, {kOlderFrame}));
    return in_python([&](const Functions& python) {
      return python.submit(number(inspector), frame, given);
    });
  });
}

zeroflaw_status zeroflaw_poll(zeroflaw_inspector inspector, double timeout_ms,
                              zeroflaw_inspection* inspection) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspection", inspection}}));
    *inspection = nullptr;
    REQUIRE(require({{"inspector", inspector}}));
    if (!(timeout_ms >= 0))
      return fail(ZEROFLAW_INVALID_ARGUMENT, "timeout_ms is " + std::to_string(timeout_ms) +
                                                 " -- give 0 or more (INFINITY: for ever)");
    using Clock = std::chrono::steady_clock;
    const Clock::time_point begun = Clock::now();
    // In slices, so that a poller who waits for ever does not hold up the process's exit.
    for (double left = timeout_ms;;) {
      uint64_t made = 0;
      const zeroflaw_status status = in_python([&](const Functions& python) {
        return python.poll(number(inspector), std::min(left, 200.0), &made);
      });
      *inspection = inspection_handle(made);
      left = timeout_ms -
             std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
      if (status != ZEROFLAW_TIMEOUT || !(left > 0)) return status;
    }
  });
}

zeroflaw_status zeroflaw_view(zeroflaw_inspection inspection, zeroflaw_inspection_view* view) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspection", inspection}, {"view", view}}));
    REQUIRE(require_size("view", view, {kFirstView, kSecondView, kThirdView}));
    clear(view);
    return in_python(
        [&](const Functions& python) { return python.view(number(inspection), view); });
  });
}

zeroflaw_status zeroflaw_release(zeroflaw_inspection inspection) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspection", inspection}}));
    return in_python(
        [&](const Functions& python) { return python.release(number(inspection)); });
  });
}

zeroflaw_status zeroflaw_inspection_json(zeroflaw_inspection inspection, char* buffer,
                                         size_t capacity, size_t* needed) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspection", inspection}, {"needed", needed}}));
    return in_python([&](const Functions& python) {
      return python.inspection_json(number(inspection), buffer, capacity, needed);
    });
  });
}

zeroflaw_status zeroflaw_frame_sha256(zeroflaw_inspection inspection, const char** digest) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"digest", digest}}));
    *digest = "";
    REQUIRE(require({{"inspection", inspection}}));
    return in_python(
        [&](const Functions& python) { return python.frame_sha256(number(inspection), digest); });
  });
}

zeroflaw_status zeroflaw_describe(zeroflaw_inspector inspector, char* buffer, size_t capacity,
                                  size_t* needed) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspector", inspector}, {"needed", needed}}));
    return in_python([&](const Functions& python) {
      return python.describe(number(inspector), buffer, capacity, needed);
    });
  });
}

zeroflaw_status zeroflaw_health(zeroflaw_inspector inspector, zeroflaw_health_report* report) {
  return guarded([&]() -> zeroflaw_status {
    REQUIRE(require({{"inspector", inspector}, {"report", report}}));
    REQUIRE(require_size("report", report, {kOlderHealth}));
    clear(report);
    return in_python(
        [&](const Functions& python) { return python.health(number(inspector), report); });
  });
}

}  // extern "C"
