// What a call costs beside the inspection itself: wall time of inspect, view and release, less the
// inspection's own "total". Prints one line of JSON.
//
//   latency BUNDLE PRODUCT CALLS FRAME...
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>
#include <zeroflaw/zeroflaw.hpp>

#include "pnm.hpp"

namespace {

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

double total_ms(const zeroflaw::Inspection& inspection) {
  for (const zeroflaw_timing& timing : inspection.timings())
    if (std::string_view(timing.stage) == "total") return timing.milliseconds;
  throw std::runtime_error("the inspection has no total");
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 5) return 2;
  const int calls = std::stoi(argv[3]);
  std::vector<PnmImage> images;
  for (int i = 4; i < argc; ++i) images.push_back(read_pnm(argv[i]));
  zeroflaw::Config config;
  config.bundle = argv[1];
  zeroflaw::Inspector inspector(config);
  inspector.warm_up();
  std::vector<double> beside, whole;
  for (int call = -5; call < calls; ++call) {
    const PnmImage& image = images[static_cast<std::size_t>(call + 5) % images.size()];
    zeroflaw::Frame frame;
    frame.pixels = image.pixels.data();
    frame.width = image.width;
    frame.height = image.height;
    frame.stride = std::size_t{image.width} * image.channels;
    frame.pixel_format =
        image.channels == 3 ? zeroflaw::PixelFormat::rgb8 : zeroflaw::PixelFormat::mono8;
    frame.product = argv[2];
    using Clock = std::chrono::steady_clock;
    const Clock::time_point begun = Clock::now();
    double total = 0;
    {
      const zeroflaw::Inspection inspection = inspector.inspect(frame);
      total = total_ms(inspection);
    }
    const double wall = std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
    if (call < 0) continue;  // the first calls fill caches
    whole.push_back(wall);
    beside.push_back(wall - total);
  }
  std::printf("{\"calls\": %d, \"wall_p50\": %.4f, \"beside_p50\": %.4f, \"beside_p90\": %.4f, "
              "\"beside_p99\": %.4f}\n",
              calls, quantile(whole, 0.5), quantile(beside, 0.5), quantile(beside, 0.9),
              quantile(beside, 0.99));
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
