#include "interpreter.hpp"

#include <dlfcn.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <mutex>

#include "environment.hpp"

namespace zeroflaw_library {
namespace {

// Functions of Python's stable ABI: found by name at run time, so that one build of this library
// serves every Python from 3.11 on, and that a missing one is told in words.
struct Python {
  int (*IsInitialized)();
  void (*InitializeEx)(int);
  void (*SetProgramName)(const wchar_t*);
  wchar_t* (*DecodeLocale)(const char*, size_t*);
  int (*GILState_Ensure)();
  void (*GILState_Release)(int);
  void* (*Eval_SaveThread)();
  void (*Eval_RestoreThread)(void*);
  void* (*Import_ImportModule)(const char*);
  void* (*Object_GetAttrString)(void*, const char*);
  void* (*Object_CallFunction)(void*, const char*, ...);
  void* (*Object_Str)(void*);
  const char* (*Unicode_AsUTF8AndSize)(void*, ssize_t*);
  void (*Err_Fetch)(void**, void**, void**);
  void (*Err_Clear)();
  void (*DecRef)(void*);
  void* (*Sys_GetObject)(const char*);
};

// Never destroyed: threads may still call when the process's static objects are gone.
struct State {
  std::mutex starting;
  std::atomic<bool> started{false};
  std::atomic<bool> closing{false};
  bool hosted = false;  // Python was here before us, and ends by itself
  std::atomic<bool> runs{false};   // Python runs, connected or not: it can only be started once
  std::atomic<pid_t> process{0};   // that starts Python, or has started it
  std::atomic<int> starters{0};    // threads that start it, or wait to
  std::string home;
  Python python{};
  Functions functions{};
  std::mutex calls;
  std::condition_variable last_call_ended;
  int calls_under_way = 0;
  unsigned long calls_ended = 0;
};

State& state() {
  static State* the_state = new State;
  return *the_state;
}

// What Python remembers of a thread that it did not make. Without it every call would begin with
// a thread that Python has never seen, and buffers kept for the thread would be made anew.
// Trivial, so that a call from a destructor at the process's exit finds it in order.
struct ThreadMemory {
  void* thread_state;
  int gil_state;
};
thread_local ThreadMemory thread_memory{nullptr, 0};

void shut_down();

struct AtThreadEnd {
  ~AtThreadEnd() {
    if (in_a_fork()) return;
    // The main thread's end is the process's, and this comes before all static destructors.
    if (gettid() == getpid()) {
      shut_down();
      return;
    }
    if (thread_memory.thread_state == nullptr || state().closing) return;
    const Python& python = state().python;
    python.Eval_RestoreThread(thread_memory.thread_state);
    python.GILState_Release(thread_memory.gil_state);
    thread_memory.thread_state = nullptr;
  }
};

void act_at_thread_end() {
  thread_local AtThreadEnd at_its_end;
  static_cast<void>(at_its_end);
}

// For the main thread, even if it never calls the library.
[[maybe_unused]] const bool acts_at_main_thread_end = (act_at_thread_end(), true);

void remember_thread() {
  // A Python that hosts us knows its own threads, and may be gone when others end.
  if (thread_memory.thread_state != nullptr || state().hosted) return;
  act_at_thread_end();
  const Python& python = state().python;
  thread_memory.gil_state = python.GILState_Ensure();
  thread_memory.thread_state = python.Eval_SaveThread();
}

thread_local char error_text[2048];

template <typename Function>
bool find(void* library, const char* name, Function& function, std::string& missing) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) missing = name;
  return function != nullptr;
}

std::string find_functions(void* library, Python& python) {
  std::string missing;
  const bool complete =
      find(library, "Py_IsInitialized", python.IsInitialized, missing) &&
      find(library, "Py_InitializeEx", python.InitializeEx, missing) &&
      find(library, "Py_SetProgramName", python.SetProgramName, missing) &&
      find(library, "Py_DecodeLocale", python.DecodeLocale, missing) &&
      find(library, "PyGILState_Ensure", python.GILState_Ensure, missing) &&
      find(library, "PyGILState_Release", python.GILState_Release, missing) &&
      find(library, "PyEval_SaveThread", python.Eval_SaveThread, missing) &&
      find(library, "PyEval_RestoreThread", python.Eval_RestoreThread, missing) &&
      find(library, "PyImport_ImportModule", python.Import_ImportModule, missing) &&
      find(library, "PyObject_GetAttrString", python.Object_GetAttrString, missing) &&
      find(library, "PyObject_CallFunction", python.Object_CallFunction, missing) &&
      find(library, "PyObject_Str", python.Object_Str, missing) &&
      find(library, "PyUnicode_AsUTF8AndSize", python.Unicode_AsUTF8AndSize, missing) &&
      find(library, "PyErr_Fetch", python.Err_Fetch, missing) &&
      find(library, "PyErr_Clear", python.Err_Clear, missing) &&
      find(library, "Py_DecRef", python.DecRef, missing) &&
      find(library, "PySys_GetObject", python.Sys_GetObject, missing);
  if (complete) return "";
  return "Python's library has no " + missing +
         " -- use a Python that this version of zeroflaw knows (3.11 to 3.13)";
}

std::string text_of(const Python& python, void* object) {
  void* text = object ? python.Object_Str(object) : nullptr;
  const char* utf8 = text ? python.Unicode_AsUTF8AndSize(text, nullptr) : nullptr;
  const std::string result = utf8 ? utf8 : "";
  if (text != nullptr) python.DecRef(text);
  python.Err_Clear();
  return result;
}

std::string python_error(const Python& python) {
  void *kind = nullptr, *error = nullptr, *traceback = nullptr;
  python.Err_Fetch(&kind, &error, &traceback);
  void* name = kind ? python.Object_GetAttrString(kind, "__name__") : nullptr;
  std::string text = text_of(python, name) + ": " + text_of(python, error);
  for (void* object : {kind, error, traceback, name})
    if (object != nullptr) python.DecRef(object);
  return text;
}

// Calls zeroflaw.capi.connect; the GIL is held. What it returns is kept for good.
std::string connect(State& the) {
  const Python& python = the.python;
  the.functions.struct_size = sizeof the.functions;
  void* module = python.Import_ImportModule("zeroflaw.capi");
  void* function = module ? python.Object_GetAttrString(module, "connect") : nullptr;
  void* connection =
      function ? python.Object_CallFunction(
                     function, "KKi", reinterpret_cast<unsigned long long>(&the.functions),
                     reinterpret_cast<unsigned long long>(&set_last_error), ZEROFLAW_ABI_VERSION)
               : nullptr;
  if (connection == nullptr)
    return "zeroflaw cannot be used in " + (the.home.empty() ? "this Python" : the.home) + ": " +
           python_error(python) +
           " -- install zeroflaw and this library in the same version in that environment";
  // An older zeroflaw overwrites it with what it knows.
  if (the.functions.struct_size != sizeof the.functions)
    return "zeroflaw is older than this library -- install both in the same version";
  return "";
}

std::string other_environment(const std::string& running, const char* asked) {
  return "this process already runs the Python environment " + running + ", not " + asked +
         " -- a process has one; name that one or none, or use a process of its own";
}

// Where Python was before us: its environment is the one there is.
std::string join_interpreter(State& the, const char* home) {
  if (home != nullptr) {
    const int gil_state = the.python.GILState_Ensure();
    const std::string prefix = text_of(the.python, the.python.Sys_GetObject("prefix"));
    the.python.GILState_Release(gil_state);
    char* asked = realpath(home, nullptr);
    char* running = realpath(prefix.c_str(), nullptr);
    const bool same = asked && running && std::strcmp(asked, running) == 0;
    free(asked);
    free(running);
    if (!same) return other_environment(prefix, home);
  }
  return "";
}

// Python takes SIGINT when its module `signal` is imported, whoever does so. It is the process's.
class KeptSignals {
 public:
  KeptSignals() {
    for (int number = 1; number < kCount; ++number)
      known_[number] = sigaction(number, nullptr, &actions_[number]) == 0;
  }
  ~KeptSignals() {
    for (int number = 1; number < kCount; ++number) {
      struct sigaction now;
      if (known_[number] && sigaction(number, nullptr, &now) == 0 &&
          now.sa_handler != actions_[number].sa_handler)
        sigaction(number, &actions_[number], nullptr);
    }
  }
  KeptSignals(const KeptSignals&) = delete;
  KeptSignals& operator=(const KeptSignals&) = delete;

 private:
  static constexpr int kCount = 32;
  struct sigaction actions_[kCount];
  bool known_[kCount] = {};
};

std::string load_interpreter(State& the, const std::string& home) {
  Environment environment;
  const std::string wrong = look_at_environment(home, environment);
  if (!wrong.empty()) return wrong;
  using GetVersion = const char* (*)();
  const auto present = reinterpret_cast<GetVersion>(dlsym(RTLD_DEFAULT, "Py_GetVersion"));
  if (present && std::strncmp(present(), (environment.version + ".").c_str(),
                              environment.version.size() + 1) != 0)
    return "this process has the library of Python " + std::string(present()).substr(0, 7) +
           ", and the environment " + home + " is of " + environment.version +
           " -- make the environment with the same Python";
  // Global: extension modules expect to find Python's functions without naming a library.
  void* library = dlopen(environment.library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    const char* why = dlerror();
    return "the library of Python " + environment.version + " cannot be loaded: " +
           (why ? why : environment.library) + " -- install it (Debian: apt install libpython" +
           environment.version + ")";
  }
  const std::string missing = find_functions(library, the.python);
  if (!missing.empty()) return missing;
  // As with `python -I`: the process's own PYTHONPATH and PYTHONHOME are not meant for us.
  for (const char* name :
       {"Py_IgnoreEnvironmentFlag", "Py_NoUserSiteDirectory", "Py_IsolatedFlag"})
    if (auto* flag = static_cast<int*>(dlsym(library, name))) *flag = 1;
  the.python.SetProgramName(the.python.DecodeLocale(environment.python.c_str(), nullptr));
  const char* locale = setlocale(LC_CTYPE, nullptr);
  const std::string process_locale = locale ? locale : "C";
  {
    const KeptSignals kept;
    the.python.InitializeEx(0);
    if (void* module = the.python.Import_ImportModule("signal")) the.python.DecRef(module);
    the.python.Err_Clear();
  }
  setlocale(LC_CTYPE, process_locale.c_str());
  the.runs = true;
  the.home = home;
  the.python.Eval_SaveThread();
  return "";
}

// Runs at the process's exit. It has to come before the static objects of the libraries that
// Python has loaded are destroyed under the feet of inspections.
void shut_down() {
  State& the = state();
  if (in_a_fork() || the.hosted || !the.started || the.closing.exchange(true)) return;
  std::unique_lock<std::mutex> lock(the.calls);
  const bool ended = the.last_call_ended.wait_for(lock, std::chrono::seconds(30),
                                                  [&] { return the.calls_under_way == 0; });
  lock.unlock();
  if (ended) the.functions.close_all();
}

// The exit of a fork. Libraries that Python has loaded end their threads when a process exits, and
// wait for ever for those that a fork does not have: ONNX Runtime does. So the child's exit ends with
// the handlers that the child itself has registered, and with its output.
void end_fork(int status, void*) {
  std::cout.flush();
  std::clog.flush();
  std::fflush(nullptr);
  _exit(status);
}

// A library under NumPy waits for ever in a fork while another thread computes: the fork waits for
// the inspections that are under way, and they wait for it. Python's own forks do so by themselves.
thread_local bool holds_calls = false;

void before_fork() {
  const State& the = state();
  holds_calls = the.started && !the.closing && !in_a_fork();
  if (holds_calls) the.functions.before_fork();
}

void in_the_parent() {
  if (holds_calls) state().functions.after_fork();
  holds_calls = false;
}

void in_the_child() {
  // Handlers run from the last to the first: this one comes before all of the parent's.
  if (state().runs) on_exit(end_fork, nullptr);
}

// Told before the lock is taken: a process that is forked meanwhile must not wait for it.
class Starting {
 public:
  explicit Starting(State& the) : the_(the) {
    the.process = getpid();
    ++the.starters;
  }
  ~Starting() { --the_.starters; }
  Starting(const Starting&) = delete;
  Starting& operator=(const Starting&) = delete;

 private:
  State& the_;
};

}  // namespace

bool in_a_fork() {
  const State& the = state();
  const pid_t process = the.process;
  return process != 0 && process != getpid() && (the.runs || the.started || the.starters > 0);
}

std::string start_interpreter(const char* home) {
  State& the = state();
  const Starting starting(the);
  if (home == nullptr || *home == '\0') home = getenv("ZEROFLAW_PYTHON_HOME");
  if (home != nullptr && *home == '\0') home = nullptr;
  std::lock_guard<std::mutex> lock(the.starting);
  if (the.started && the.hosted) return join_interpreter(the, home);
  if (the.runs && home != nullptr && the.home != home) return other_environment(the.home, home);
  if (the.started) return "";
  if (!the.runs) {
    using IsInitialized = int (*)();
    const auto present = reinterpret_cast<IsInitialized>(dlsym(RTLD_DEFAULT, "Py_IsInitialized"));
    the.hosted = present != nullptr && present() != 0;
    if (!the.hosted && home == nullptr)
      return "no Python environment was named -- set python_home, or the environment variable "
             "ZEROFLAW_PYTHON_HOME, to the directory of a virtual environment where zeroflaw is "
             "installed (python3 -m venv DIR; DIR/bin/pip install zeroflaw-*.whl)";
    std::string wrong;
    if (the.hosted) {
      wrong = find_functions(RTLD_DEFAULT, the.python);
      if (wrong.empty()) wrong = join_interpreter(the, home);
    } else {
      wrong = load_interpreter(the, home);
    }
    if (!wrong.empty()) return wrong;
    // A Python that hosts us ends its forks by itself.
    if (!the.hosted) pthread_atfork(nullptr, nullptr, in_the_child);
  }
  const int gil_state = the.python.GILState_Ensure();
  const std::string wrong = connect(the);
  the.python.GILState_Release(gil_state);
  if (!wrong.empty()) return wrong;
  // After the libraries under NumPy have registered theirs: the last comes first.
  if (!the.hosted) pthread_atfork(before_fork, in_the_parent, nullptr);
  the.started = true;
  return "";
}

const Functions* functions() {
  State& the = state();
  return the.started ? &the.functions : nullptr;
}

Call::Call() {
  State& the = state();
  {
    std::lock_guard<std::mutex> lock(the.calls);
    // A Python that hosts us ends when it likes, and then it must not be called any more.
    allowed_ = !the.closing && !(the.hosted && the.python.IsInitialized() == 0);
    if (!allowed_) return;
    ++the.calls_under_way;
  }
  remember_thread();
}

Call::~Call() {
  if (!allowed_) return;
  State& the = state();
  std::lock_guard<std::mutex> lock(the.calls);
  if (--the.calls_under_way == 0) the.last_call_ended.notify_all();
  // Should a thread other than the main one call exit: handlers run from the last to the first,
  // and libraries register theirs when something of them is first used. Hence again and again.
  const unsigned long ended = ++the.calls_ended;
  if (!the.hosted && !the.closing && (ended & (ended - 1)) == 0) std::atexit(shut_down);
}

bool shutting_down() { return state().closing; }

void set_last_error(const char* text) {
  std::strncpy(error_text, text, sizeof error_text - 1);  // the last byte is always zero
}

const char* last_error() { return error_text; }

}  // namespace zeroflaw_library
