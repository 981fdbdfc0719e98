// Inspects PGM and PPM files, prints decisions and regions, and may write masks and results.
//
//   inspect [--out DIRECTORY] BUNDLE PRODUCT FILE...
//
// BUNDLE is a directory, "mini", or a configuration file (*.toml).
// Exit code: 0 all accepted, 4 one rejected, 3 one could not be decided, 1 nothing could be done,
// 2 wrong usage. A part that was not seen, or not well enough to judge it, is never "good".
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>
#include <zeroflaw/zeroflaw.hpp>

#include "pnm.hpp"

namespace {

enum Code { kAccepted = 0, kUnusable = 1, kUsage = 2, kUndecided = 3, kRejected = 4 };

void print_polygon(const char* name, const zeroflaw::Polygon& polygon) {
  std::cout << "    " << name;
  for (const zeroflaw_point& point : polygon) std::cout << ' ' << point.x << ',' << point.y;
  std::cout << '\n';
}

void print(const zeroflaw::Inspection& inspection) {
  std::cout << inspection.frame_id() << ' ' << (inspection.accepted() ? "accept" : "reject")
            << std::fixed << std::setprecision(6) << " score " << inspection.decision_score()
            << " threshold " << inspection.threshold() << '\n';
  for (std::size_t i = 0; i < inspection.region_count(); ++i) {
    const zeroflaw::Region region = inspection.region(i);
    std::cout << "  region " << region.x() << ',' << region.y() << ' ' << region.width() << 'x'
              << region.height() << " area " << region.area() << " peak " << std::setprecision(3)
              << region.peak_score() << '\n';
    print_polygon("outline", region.polygon());
    for (std::size_t hole = 0; hole < region.hole_count(); ++hole)
      print_polygon("hole", region.hole(hole));
  }
}

// The mask as a PGM file, white where there is a defect, and the result as JSON.
void write(const zeroflaw::Inspection& inspection, const std::string& path) {
  const zeroflaw::Image<std::uint8_t> mask = inspection.mask();
  std::ofstream pgm(path + ".mask.pgm", std::ios::binary);
  pgm << "P5\n" << mask.width << ' ' << mask.height << "\n255\n";
  for (std::size_t y = 0; y < mask.height; ++y)
    for (const std::uint8_t pixel : mask.row(y)) pgm.put(pixel != 0 ? '\xff' : '\0');
  std::ofstream json(path + ".json", std::ios::binary);
  json << inspection.json();
  if (!pgm.flush() || !json.flush()) throw std::runtime_error(path + ".* cannot be written");
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

zeroflaw::Inspector inspector_of(const std::string& bundle) {
  if (ends_with(bundle, ".toml")) return zeroflaw::Inspector::from_file(bundle);
  zeroflaw::Config config;
  config.bundle = bundle;
  return zeroflaw::Inspector(config);
}

Code inspect_file(zeroflaw::Inspector& inspector, const std::string& product,
                  const std::string& path, const std::string& out) {
  const PnmImage image = read_pnm(path);
  zeroflaw::Frame frame;
  frame.pixels = image.pixels.data();
  frame.width = image.width;
  frame.height = image.height;
  frame.stride = std::size_t{image.width} * image.channels;
  frame.pixel_format =
      image.channels == 3 ? zeroflaw::PixelFormat::rgb8 : zeroflaw::PixelFormat::mono8;
  frame.product = product;
  frame.frame_id = path;
  const zeroflaw::Inspection inspection = inspector.inspect(frame);
  // A part that is held has a record too.
  if (!out.empty()) write(inspection, out + "/" + path.substr(path.find_last_of('/') + 1));
  if (inspection.decision() == zeroflaw::Decision::invalid) {
    std::cerr << path << ": " << inspection.error() << '\n';
    return kUndecided;
  }
  print(inspection);
  return inspection.accepted() ? kAccepted : kRejected;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  std::string out;
  if (words.size() > 2 && words[0] == "--out") {
    out = words[1];
    words.erase(words.begin(), words.begin() + 2);
  }
  if (words.size() < 3) {
    std::cerr << "usage: " << argv[0] << " [--out DIRECTORY] BUNDLE PRODUCT FILE...\n";
    return kUsage;
  }
  try {
    zeroflaw::Inspector inspector = inspector_of(words[0]);
    inspector.warm_up();
    int worst = kAccepted;
    for (std::size_t i = 2; i < words.size(); ++i) {
      int code = kUndecided;
      try {
        code = inspect_file(inspector, words[1], words[i], out);
      } catch (const std::exception& error) {
        std::cerr << words[i] << ": " << error.what() << '\n';
      }
      worst = std::max(worst, code);
    }
    return worst;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return kUnusable;
  }
}
