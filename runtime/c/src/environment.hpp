// The Python environment of the station: found by an explicit path, and looked at from outside
// before anything of it enters this process, so that a wrong one can be told in words and retried.
#pragma once

#include <string>

namespace zeroflaw_library {

struct Environment {
  std::string python;   // the environment's interpreter, absolute
  std::string library;  // libpython: an absolute path, or a name for the loader to find
  std::string version;  // of Python, as "3.11"
};

// Looks at the environment `home` (a venv, or a prefix with bin/python3).
// Returns "" and fills `environment`, or returns what is missing and what to do about it.
std::string look_at_environment(const std::string& home, Environment& environment);

}  // namespace zeroflaw_library
