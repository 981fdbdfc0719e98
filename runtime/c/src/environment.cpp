#include "environment.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <sstream>

extern char** environ;

namespace zeroflaw_library {
namespace {

// Isolated (-I), as the interpreter in this process will be. Answers in lines of "name=value".
constexpr const char* kQuestions = R"(
import sys
print('version=%d.%d' % sys.version_info[:2])
import os, sysconfig
name = sysconfig.get_config_var('INSTSONAME') or ''
places = sysconfig.get_config_var('LIBDIR') or '', os.path.join(sys.base_prefix, 'lib')
paths = [os.path.join(place, name) for place in places]
print('library=' + next(filter(os.path.isfile, paths), name))
try:
    import importlib.util
    found = importlib.util.find_spec('zeroflaw')
    print('zeroflaw=' + ('yes' if found else 'no'))
    print('embedding=' + ('yes' if found and importlib.util.find_spec('zeroflaw.capi') else 'no'))
except Exception as error:
    print('error=%s: %s' % (type(error).__name__, error))
print('end=')
)";

bool exists(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0;
}

// Runs a program without a shell; returns what it printed on both streams, or false.
bool output_of(const std::string& program, std::string& output, int& exit_code) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return false;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 2);
  std::string path = program, flag = "-I", command = "-c", questions = kQuestions;
  char* arguments[] = {path.data(), flag.data(), command.data(), questions.data(), nullptr};
  pid_t child = 0;
  const int failure = posix_spawn(&child, path.c_str(), &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  if (failure != 0) {
    close(ends[0]);
    output = std::strerror(failure);
    return false;
  }
  char buffer[4096];
  for (;;) {
    const ssize_t count = read(ends[0], buffer, sizeof buffer);
    if (count > 0) output.append(buffer, static_cast<size_t>(count));
    else if (count == 0 || errno != EINTR) break;
  }
  close(ends[0]);
  int status = 0;
  pid_t waited;
  do waited = waitpid(child, &status, 0);
  while (waited < 0 && errno == EINTR);
  // A host that ignores SIGCHLD reaps the child itself; then the output alone tells.
  exit_code = waited == child ? (WIFEXITED(status) ? WEXITSTATUS(status) : -1) : 0;
  return true;
}

std::string answer(const std::string& output, const std::string& name) {
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);)
    if (line.compare(0, name.size() + 1, name + "=") == 0) return line.substr(name.size() + 1);
  return "";
}

std::string last_line(const std::string& output) {
  std::istringstream lines(output);
  std::string line, last = "no output";
  while (std::getline(lines, line))
    if (!line.empty()) last = line;
  return last;
}

}  // namespace

std::string look_at_environment(const std::string& home, Environment& environment) {
  if (!exists(home))
    return "the Python environment " + home +
           " does not exist -- name the directory of a virtual environment where zeroflaw is "
           "installed (python3 -m venv DIR; DIR/bin/pip install zeroflaw-*.whl)";
  // Absolute, but with its last links as they are: a venv's python is a link to another one.
  char* directory = realpath(home.c_str(), nullptr);
  environment.python = std::string(directory ? directory : home.c_str()) + "/bin/python3";
  free(directory);
  if (!exists(environment.python))
    return home + " is not a Python environment: it has no bin/python3 -- name the directory of "
                  "a virtual environment where zeroflaw is installed";
  std::string output;
  int exit_code = 0;
  if (!output_of(environment.python, output, exit_code))
    return environment.python + " cannot be started: " + output +
           " -- make the virtual environment anew on this machine";
  environment.version = answer(output, "version");
  int major = 0, minor = 0;
  if (std::sscanf(environment.version.c_str(), "%d.%d", &major, &minor) != 2)
    return environment.python + " does not work (exit code " + std::to_string(exit_code) +
           "): " + last_line(output) + " -- make the virtual environment anew on this machine";
  if (major != 3 || minor < 11)
    return "the Python environment " + home + " has Python " + environment.version +
           ", and zeroflaw needs 3.11 or newer -- make the environment with a newer Python";
  const std::string error = answer(output, "error");
  if (!error.empty() || output.find("\nend=") == std::string::npos)
    return "the zeroflaw in " + home + " cannot be looked at: " +
           (error.empty() ? last_line(output) : error) + " -- install it again with " + home +
           "/bin/pip install zeroflaw-*.whl";
  if (answer(output, "zeroflaw") != "yes")
    return "the Python environment " + home + " has no zeroflaw -- install it with " + home +
           "/bin/pip install zeroflaw-*.whl";
  if (answer(output, "embedding") != "yes")
    return "the zeroflaw in " + home + " is older than this library and has no zeroflaw.capi"
           " -- bring it up to date with " + home + "/bin/pip install zeroflaw-*.whl";
  environment.library = answer(output, "library");
  if (environment.library.find(".so") == std::string::npos)
    return "the Python of " + home + " was built without a shared library -- make the environment "
           "with a Python that has one (Debian: apt install libpython3-dev; pyenv: "
           "PYTHON_CONFIGURE_OPTS=--enable-shared)";
  return "";
}

}  // namespace zeroflaw_library
