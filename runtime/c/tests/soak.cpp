// Many calls from many threads, on one inspector, on clones of it and through queues. Every result
// must be the first one, bit for bit. Prints one line of JSON with the memory it took.
//
//   soak BUNDLE PRODUCT THREADS CALLS_OF_EACH
//   soak BUNDLE PRODUCT THREADS main|other   until SIGINT: then the main or another thread calls
//                                            exit while calls are under way
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>
#include <zeroflaw/zeroflaw.hpp>

namespace {

constexpr std::uint32_t kWidth = 160, kHeight = 120;
constexpr int kQueuedEvery = 8;

volatile std::sig_atomic_t interrupted = 0;

double resident_kb() {
  long pages = 0, resident = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
    std::fclose(file);
  }
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1024;
}

std::vector<std::uint8_t> frame_pixels() {
  std::vector<std::uint8_t> pixels(kWidth * kHeight * 3);
  std::uint32_t state = 1;
  for (std::size_t i = 0; i < pixels.size(); ++i) {
    state = state * 1664525u + 1013904223u;
    const bool blot = i / 3 % kWidth / 40 == 1 && i / 3 / kWidth / 40 == 1;
    pixels[i] = static_cast<std::uint8_t>((blot ? 20 : 150) + (state >> 28));
  }
  return pixels;
}

// Everything of a result that must not depend on when and where it was made.
struct Fingerprint {
  double score = 0;
  std::vector<std::uint8_t> mask;
  std::vector<float> map;

  explicit Fingerprint(const zeroflaw::Inspection& inspection)
      : score(inspection.score()),
        mask(inspection.mask().data, inspection.mask().data + kWidth * kHeight),
        map(inspection.score_map().data,
            inspection.score_map().data +
                inspection.score_map().width * inspection.score_map().height) {}
  bool operator==(const Fingerprint& other) const {
    return score == other.score && mask == other.mask && map == other.map;
  }
};

// Least squares: kilobytes that each call adds.
double slope(const std::vector<double>& calls, const std::vector<double>& kilobytes) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (std::size_t i = 0; i < calls.size(); ++i, ++n) {
    x += calls[i], y += kilobytes[i];
    xx += calls[i] * calls[i], xy += calls[i] * kilobytes[i];
  }
  const double spread = n * xx - x * x;
  return spread > 0 ? (n * xy - x * y) / spread : 0;
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 5) return 2;
  const int thread_count = std::stoi(argv[3]);
  const bool exit_elsewhere = std::strcmp(argv[4], "other") == 0;
  const bool forever = exit_elsewhere || std::strcmp(argv[4], "main") == 0;
  const int calls_of_each = forever ? std::numeric_limits<int>::max() : std::stoi(argv[4]);
  const std::vector<std::uint8_t> pixels = frame_pixels();
  zeroflaw::Frame frame;
  frame.pixels = pixels.data();
  frame.width = kWidth;
  frame.height = kHeight;
  frame.stride = kWidth * 3;
  frame.product = argv[2];
  zeroflaw::Config config;
  config.bundle = argv[1];
  zeroflaw::Inspector shared(config);
  shared.warm_up();
  const Fingerprint expected(shared.inspect(frame));

  std::atomic<int> done{0}, wrong{0}, failed{0}, running{thread_count};
  std::vector<std::thread> threads;
  for (int index = 0; index < thread_count; ++index)
    threads.emplace_back([&, index] {
      try {
        // Half of the threads share one inspector; every thread has a queue of its own.
        zeroflaw::Inspector clone = shared.clone();
        zeroflaw::Inspector& own = index % 2 == 0 ? shared : clone;
        for (int call = 0; call < calls_of_each; ++call) {
          if (call % kQueuedEvery == 0) {
            clone.submit(frame);
            const std::optional<zeroflaw::Inspection> polled =
                clone.poll(std::numeric_limits<double>::infinity());
            wrong += !(Fingerprint(*polled) == expected);
          } else {
            wrong += !(Fingerprint(own.inspect(frame)) == expected);
          }
          ++done;
        }
      } catch (const zeroflaw::Error& error) {
        if (error.status() != ZEROFLAW_SHUTTING_DOWN) {
          std::fprintf(stderr, "%s\n", error.what());
          ++failed;
        }
      }
      --running;
    });

  if (forever) {
    std::signal(SIGINT, [](int) { interrupted = 1; });
    std::printf("running\n");
    std::fflush(stdout);
    const auto exit_when_interrupted = [] {
      while (!interrupted) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      std::exit(130);  // the threads are inside their calls
    };
    if (exit_elsewhere) std::thread(exit_when_interrupted).join();
    exit_when_interrupted();
  }
  const auto begun = std::chrono::steady_clock::now();
  std::vector<double> calls, kilobytes;
  while (running > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    // The first quarter fills every thread's buffers and the allocator's arenas.
    if (done * 4 < thread_count * calls_of_each) continue;
    calls.push_back(done);
    kilobytes.push_back(resident_kb());
  }
  for (std::thread& thread : threads) thread.join();
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  const zeroflaw_health_report health = shared.health();
  std::printf("{\"calls\": %d, \"threads\": %d, \"wrong\": %d, \"failed\": %d, \"seconds\": %.2f, "
              "\"rss_mb\": %.1f, \"kb_per_call\": %.4f, \"heartbeat\": %llu}\n",
              done.load(), thread_count, wrong.load(), failed.load(), seconds,
              resident_kb() / 1024, slope(calls, kilobytes),
              static_cast<unsigned long long>(health.heartbeat));
  return wrong == 0 && failed == 0 ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
