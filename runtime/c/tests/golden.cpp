// Inspects the frames of the golden vectors and compares; the C side of
// tests/support/golden_vectors.py, with the same tolerances.
//
//   golden BUNDLE VECTORS_DIRECTORY FRAMES_DIRECTORY     frames as NAME.ppm or NAME.pgm
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>
#include <zeroflaw/zeroflaw.hpp>

#include "pnm.hpp"

namespace {

struct Tolerances {
  double score = 0;
  double pixels = 0;
  double share = 0;
  long long smallest_region = 0;
  int box = 0;
};

struct Box {
  long long x, y, width, height, area;
};

struct Vector {
  std::string name, product, decision;
  double score = 0;
  std::vector<Box> regions;
};

// Reads bits of a PBM file (P4): rows of bytes, the first pixel in the highest bit.
std::vector<std::uint8_t> read_pbm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string kind;
  std::size_t width = 0, height = 0;
  file >> kind >> width >> height;
  file.get();
  if (!file || kind != "P4") throw std::runtime_error(path + " is not a PBM file");
  std::vector<std::uint8_t> pixels;
  for (std::size_t y = 0; y < height; ++y)
    for (std::size_t x = 0, byte = 0; x < width; ++x) {
      if (x % 8 == 0) byte = static_cast<std::size_t>(file.get());
      pixels.push_back(byte >> (7 - x % 8) & 1);
    }
  if (!file) throw std::runtime_error(path + " ends early");
  return pixels;
}

std::vector<Vector> read_vectors(const std::string& path, std::string& bundle,
                                 Tolerances& tolerances) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + " cannot be opened");
  std::vector<Vector> vectors;
  for (std::string line, word; std::getline(file, line);) {
    std::istringstream words(line);
    words >> word;
    if (word == "bundle") words >> bundle;
    if (word == "tolerances")
      words >> tolerances.score >> tolerances.pixels >> tolerances.share >>
          tolerances.smallest_region >> tolerances.box;
    if (word == "frame") {
      vectors.emplace_back();
      Vector& vector = vectors.back();
      words >> vector.name >> vector.product >> vector.decision >> vector.score;
    }
    if (word == "region") {
      Box box{};
      words >> box.x >> box.y >> box.width >> box.height >> box.area;
      vectors.back().regions.push_back(box);
    }
    if (!words) throw std::runtime_error(path + ": cannot read: " + line);
  }
  return vectors;
}

std::ifstream::pos_type size_of(const std::string& path) {
  return std::ifstream(path, std::ios::ate | std::ios::binary).tellg();
}

std::string compare(const Vector& vector, const std::vector<std::uint8_t>& golden,
                    const zeroflaw::Inspection& inspection, const Tolerances& tolerances) {
  if ((inspection.accepted() ? "accept" : "reject") != vector.decision) return "decision";
  if (!(std::abs(inspection.score() - vector.score) <= tolerances.score)) return "score";
  const auto mask = inspection.mask();
  if (mask.width * mask.height != golden.size()) return "mask size";
  double differing = 0, either = 0;
  for (std::size_t i = 0; i < golden.size(); ++i) {
    differing += golden[i] != mask.data[i];
    either += golden[i] || mask.data[i];
  }
  if (differing > tolerances.pixels + tolerances.share * either) return "mask";
  std::vector<Box> regions;
  for (std::size_t i = 0; i < inspection.region_count(); ++i) {
    const zeroflaw::Region region = inspection.region(i);
    if (region.area() >= tolerances.smallest_region)
      regions.push_back({region.x(), region.y(), region.width(), region.height(), region.area()});
  }
  if (regions.size() != vector.regions.size()) return "number of regions";
  for (std::size_t i = 0; i < regions.size(); ++i) {
    const Box &is = regions[i], &was = vector.regions[i];
    for (const long long off : {is.x - was.x, is.y - was.y, is.x + is.width - was.x - was.width,
                                is.y + is.height - was.y - was.height})
      if (std::abs(off) > tolerances.box) return "box of region " + std::to_string(i);
  }
  return "";
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) return 2;
  const std::string directory = argv[2], frames = argv[3];
  std::string bundle;
  Tolerances tolerances;
  const std::vector<Vector> vectors =
      read_vectors(directory + "/vectors.txt", bundle, tolerances);
  zeroflaw::Config config;
  config.bundle = argv[1];
  zeroflaw::Inspector inspector(config);
  int differing = 0;
  for (const Vector& vector : vectors) {
    const std::string base = frames + "/" + vector.name;
    const PnmImage image = read_pnm(base + (size_of(base + ".ppm") > 0 ? ".ppm" : ".pgm"));
    zeroflaw::Frame frame;
    frame.pixels = image.pixels.data();
    frame.width = image.width;
    frame.height = image.height;
    frame.stride = std::size_t{image.width} * image.channels;
    frame.pixel_format =
        image.channels == 3 ? zeroflaw::PixelFormat::rgb8 : zeroflaw::PixelFormat::mono8;
    frame.product = vector.product;
    const zeroflaw::Inspection inspection = inspector.inspect(frame);
    std::string differs = inspection.bundle() != bundle ? "bundle" : "";
    if (differs.empty())
      differs = compare(vector, read_pbm(directory + "/" + vector.name + ".pbm"), inspection,
                        tolerances);
    std::printf("%s %s%s\n", vector.name.c_str(), differs.empty() ? "agrees" : "differs: ",
                differs.c_str());
    differing += !differs.empty();
  }
  return differing == 0 && !vectors.empty() ? 0 : 1;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
