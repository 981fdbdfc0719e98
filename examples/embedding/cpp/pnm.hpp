// Reads binary PGM and PPM files (P5 and P6, 8 bits), without a dependency.
#pragma once

#include <cstdint>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

struct PnmImage {
  std::vector<std::uint8_t> pixels;  // rows from the top, packed
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::uint32_t channels = 0;  // 1 grey, 3 RGB
};

// Throws std::runtime_error with what is wrong.
inline PnmImage read_pnm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + " cannot be opened");
  const auto next_number = [&] {
    while (file >> std::ws && file.peek() == '#')
      file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    std::uint32_t number = 0;
    if (!(file >> number)) throw std::runtime_error(path + " has a header that is not complete");
    return number;
  };
  std::string kind(2, '\0');
  file.read(kind.data(), 2);
  if (kind != "P5" && kind != "P6")
    throw std::runtime_error(path + " is not a binary PGM or PPM file (P5 or P6)");
  PnmImage image;
  image.width = next_number();
  image.height = next_number();
  if (next_number() != 255) throw std::runtime_error(path + " has pixels of more than 8 bits");
  file.get();  // the one character of white space that ends the header
  image.channels = kind == "P6" ? 3 : 1;
  const std::uint64_t size = std::uint64_t{image.width} * image.height * image.channels;
  if (size == 0 || size > (std::uint64_t{1} << 32))
    throw std::runtime_error(path + " has a size that is none of an image");
  image.pixels.resize(size);
  if (!file.read(reinterpret_cast<char*>(image.pixels.data()), static_cast<std::streamsize>(size)))
    throw std::runtime_error(path + " ends early");
  return image;
}
