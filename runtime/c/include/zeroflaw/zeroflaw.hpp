// zeroflaw: inspect frames from C++17. A header over the C ABI of zeroflaw.h; docs/embedding.md has
// a complete first program.
//
// Objects own what they stand for, can be moved and not copied. What goes wrong is thrown as
// zeroflaw::Error with a status, the cause and the remedy; poll alone answers with an empty optional.
#pragma once

#include <zeroflaw/zeroflaw.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace zeroflaw {

// A call that failed: what() says why, and what to do about it.
class Error : public std::runtime_error {
 public:
  Error(zeroflaw_status status, const std::string& text)
      : std::runtime_error(text), status_(status) {}
  zeroflaw_status status() const noexcept { return status_; }

 private:
  zeroflaw_status status_;
};

inline void require_ok(zeroflaw_status status) {
  if (status != ZEROFLAW_OK) throw Error(status, zeroflaw_last_error());
}

// What to do with the part. Whatever could not be judged in time is `invalid`: hold it.
enum class Decision : zeroflaw_decision {
  invalid = ZEROFLAW_INVALID,
  accept = ZEROFLAW_ACCEPT,
  reject = ZEROFLAW_REJECT
};

enum class PixelFormat : zeroflaw_pixel_format {
  mono8 = ZEROFLAW_MONO8,
  rgb8 = ZEROFLAW_RGB8,
  bgr8 = ZEROFLAW_BGR8,
  rgba8 = ZEROFLAW_RGBA8,
  bgra8 = ZEROFLAW_BGRA8,
  mono16 = ZEROFLAW_MONO16
};

// Values that lie in a row, owned by somebody else.
template <typename Value>
class Span {
 public:
  Span(const Value* data, std::size_t size) noexcept : data_(data), size_(size) {}
  const Value* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  const Value& operator[](std::size_t index) const { return data_[index]; }
  const Value* begin() const noexcept { return data_; }
  const Value* end() const noexcept { return data_ + size_; }

 private:
  const Value* data_;
  std::size_t size_;
};

// Rows of pixels, owned by somebody else.
template <typename Value>
struct Image {
  const Value* data;
  std::size_t width;
  std::size_t height;
  std::size_t stride;  // values from row to row

  const Value& operator()(std::size_t x, std::size_t y) const { return data[y * stride + x]; }
  Span<Value> row(std::size_t y) const { return {data + y * stride, width}; }
};

using Polygon = Span<zeroflaw_point>;

// One connected component of a mask, in frame pixels.
class Region {
 public:
  explicit Region(const zeroflaw_region& region) noexcept : region_(&region) {}
  std::int32_t x() const noexcept { return region_->x; }
  std::int32_t y() const noexcept { return region_->y; }
  std::int32_t width() const noexcept { return region_->width; }
  std::int32_t height() const noexcept { return region_->height; }
  std::int64_t area() const noexcept { return region_->area; }
  double centroid_x() const noexcept { return region_->centroid_x; }
  double centroid_y() const noexcept { return region_->centroid_y; }
  double peak_score() const noexcept { return region_->peak_score; }
  Polygon polygon() const noexcept {
    return {region_->polygon.points, region_->polygon.point_count};
  }
  std::size_t hole_count() const noexcept { return region_->hole_count; }
  Polygon hole(std::size_t index) const {
    return {region_->holes[index].points, region_->holes[index].point_count};
  }
  // Names of the product's zones to include that it touches, and the worst severity of theirs.
  Span<const char*> zones() const noexcept { return {region_->zones, region_->zone_count}; }
  std::string_view severity() const noexcept { return region_->severity; }  // empty: no zone
  double area_mm2() const noexcept { return region_->area_mm2; }            // 0: no scale

 private:
  const zeroflaw_region* region_;
};

// The result of one frame. What its views show lives as long as it does.
class Inspection {
 public:
  explicit Inspection(zeroflaw_inspection handle) : handle_(handle) {
    view_.struct_size = sizeof view_;
    const zeroflaw_status status = zeroflaw_view(handle_, &view_);
    if (status == ZEROFLAW_OK) return;
    const Error error(status, zeroflaw_last_error());
    zeroflaw_release(handle_);
    throw error;
  }
  Inspection(Inspection&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), view_(other.view_) {}
  Inspection& operator=(Inspection&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(view_, other.view_);
    return *this;
  }
  Inspection(const Inspection&) = delete;
  Inspection& operator=(const Inspection&) = delete;
  ~Inspection() {
    if (handle_ != nullptr) zeroflaw_release(handle_);
  }

  // ZEROFLAW_OK, or why there is no decision; error() says it in words.
  zeroflaw_status status() const noexcept { return view_.status; }
  std::string_view error() const noexcept { return view_.error; }
  Decision decision() const noexcept { return static_cast<Decision>(view_.decision); }
  bool accepted() const noexcept { return decision() == Decision::accept; }
  bool deadline_missed() const noexcept { return view_.deadline_missed != 0; }
  std::uint64_t ticket() const noexcept { return view_.ticket; }
  std::string_view frame_id() const noexcept { return view_.frame_id; }
  std::string_view part_id() const noexcept { return view_.part_id; }
  std::string_view product() const noexcept { return view_.product; }
  std::string_view outcome() const noexcept { return view_.outcome; }
  std::string_view bundle() const noexcept { return view_.bundle; }
  std::string_view backend() const noexcept { return view_.backend; }
  std::string_view camera_id() const noexcept { return view_.camera_id; }
  // Why it was accepted, rejected or held: a stable name, and a sentence.
  std::string_view reason() const noexcept { return view_.reason; }
  std::string_view reason_text() const noexcept { return view_.reason_text; }
  // What tells this frame from every other, and when it was handed over.
  std::string_view id() const noexcept { return view_.id; }
  std::string_view time() const noexcept { return view_.time; }
  std::uint64_t monotonic_ns() const noexcept { return view_.monotonic_ns; }
  // What judged it: the version, and digests.
  std::string_view software() const noexcept { return view_.software; }
  std::string_view text_embeddings() const noexcept { return view_.text_embeddings; }
  std::string_view calibration() const noexcept { return view_.calibration; }
  std::string_view parameters() const noexcept { return view_.parameters; }
  std::string_view reference() const noexcept { return view_.reference; }  // empty: no bank
  std::string_view settings() const noexcept { return view_.settings; }    // empty: none
  double score() const noexcept { return view_.score; }
  // What is compared with the threshold: what the product's rules make of regions and score.
  double decision_score() const noexcept { return view_.decision_score; }
  std::string_view rule() const noexcept { return view_.rule; }  // that rejected; empty: none
  // Tiles that the encoders saw the frame in, 0: as a whole; and those that CLIP was run on.
  std::uint32_t tile_rows() const noexcept { return view_.tile_rows; }
  std::uint32_t tile_columns() const noexcept { return view_.tile_columns; }
  std::uint32_t tiles_run() const noexcept { return view_.tiles_run; }
  // Whether the part was sought in the frame, and where it was found.
  bool aligned() const noexcept { return view_.aligned != 0; }
  double shift_x() const noexcept { return view_.shift_x; }
  double shift_y() const noexcept { return view_.shift_y; }
  double rotation() const noexcept { return view_.rotation; }
  double correlation() const noexcept { return view_.correlation; }
  double threshold() const noexcept { return view_.threshold; }
  double queue_ms() const noexcept { return view_.queue_ms; }
  // 1 where there is a defect, else 0, at the frame's size.
  Image<std::uint8_t> mask() const noexcept {
    return {view_.mask, view_.frame_width, view_.frame_height, view_.mask_stride};
  }
  Image<float> anomaly_map() const noexcept { return map(view_.anomaly_map); }
  Image<float> score_map() const noexcept { return map(view_.score_map); }
  std::size_t region_count() const noexcept { return view_.region_count; }
  Region region(std::size_t index) const { return Region(*view_.regions[index]); }
  Span<zeroflaw_timing> timings() const noexcept { return {view_.timings, view_.timing_count}; }
  Span<const char*> warnings() const noexcept { return {view_.warnings, view_.warning_count}; }
  // The frame's record, as docs/inspection.schema.json describes it; of a frame without a decision
  // it says "hold".
  std::string json() const;
  // Of the frame as it was inspected; computed at the first call. Empty if it was not inspected.
  std::string_view frame_sha256() const {
    const char* digest = "";
    require_ok(zeroflaw_frame_sha256(handle_, &digest));
    return digest;
  }

 private:
  Image<float> map(const float* data) const noexcept {
    return {data, view_.map_width, view_.map_height, view_.map_width};
  }

  zeroflaw_inspection handle_;
  zeroflaw_inspection_view view_{};
};

// Pixels as they lie in memory, and how they are to be inspected. Owns nothing.
struct Frame {
  const void* pixels = nullptr;
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::size_t stride = 0;  // bytes from row to row, padding included
  PixelFormat pixel_format = PixelFormat::rgb8;
  std::string product;  // empty: the only product of the bundle
  std::string frame_id;
  std::string part_id;
  double deadline_ms = 0;  // 0: none
  float white_level = 0;   // 0: the format's largest
  std::string camera_id;
};

// Empty texts and zeros mean the default; see zeroflaw_config.
struct Config {
  std::string python_home;
  std::string bundle;
  std::string backend;
  std::string precision;
  std::string model_cache;
  std::string encoder_schedule;
  std::uint64_t max_frame_pixels = 0;
  std::int32_t threads = 0;
  std::int32_t queue_size = 0;
  std::string when_full;
  std::int32_t device = 0;
};

namespace detail {

inline const char* or_null(const std::string& text) {
  return text.empty() ? nullptr : text.c_str();
}

inline zeroflaw_frame c_frame(const Frame& frame) {
  zeroflaw_frame given = ZEROFLAW_FRAME_INIT;
  given.pixels = frame.pixels;
  given.stride = frame.stride;
  given.width = frame.width;
  given.height = frame.height;
  given.pixel_format = static_cast<zeroflaw_pixel_format>(frame.pixel_format);
  given.white_level = frame.white_level;
  given.product = or_null(frame.product);
  given.frame_id = frame.frame_id.c_str();
  given.part_id = frame.part_id.c_str();
  given.deadline_ms = frame.deadline_ms;
  given.camera_id = frame.camera_id.c_str();
  return given;
}

template <typename Handle>
std::string text(zeroflaw_status (*function)(Handle, char*, std::size_t, std::size_t*),
                 Handle handle) {
  std::size_t needed = 0;
  require_ok(function(handle, nullptr, 0, &needed));
  std::string buffer(needed, '\0');
  require_ok(function(handle, buffer.data(), buffer.size(), &needed));
  buffer.resize(needed - 1);
  return buffer;
}

}  // namespace detail

inline std::string Inspection::json() const {
  return detail::text(zeroflaw_inspection_json, handle_);
}

// Engines of a bundle, ready to inspect. Any thread may call any method of one object; calls wait
// for each other, and clones run side by side. Moving and destroying are for one thread alone.
class Inspector {
 public:
  // Verifies the bundle and loads its engines; the first one of the process starts Python.
  explicit Inspector(const Config& config = {}) {
    zeroflaw_config given = ZEROFLAW_CONFIG_INIT;
    given.python_home = detail::or_null(config.python_home);
    given.bundle = detail::or_null(config.bundle);
    given.backend = detail::or_null(config.backend);
    given.precision = detail::or_null(config.precision);
    given.model_cache = detail::or_null(config.model_cache);
    given.encoder_schedule = detail::or_null(config.encoder_schedule);
    given.max_frame_pixels = config.max_frame_pixels;
    given.threads = config.threads;
    given.queue_size = config.queue_size;
    given.when_full = detail::or_null(config.when_full);
    given.device = config.device;
    require_ok(zeroflaw_create(&given, &handle_));
  }
  // The same from a TOML file with the fields of Config (but for python_home).
  static Inspector from_file(const std::string& config_file, const std::string& python_home = "") {
    zeroflaw_inspector handle = nullptr;
    require_ok(
        zeroflaw_create_from_file(config_file.c_str(), detail::or_null(python_home), &handle));
    return Inspector(handle);
  }
  Inspector(Inspector&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Inspector& operator=(Inspector&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Inspector(const Inspector&) = delete;
  Inspector& operator=(const Inspector&) = delete;
  ~Inspector() {
    if (handle_ != nullptr) zeroflaw_destroy(handle_);
  }

  // Another inspector with the same weights and a queue of its own.
  Inspector clone() const {
    zeroflaw_inspector made = nullptr;
    require_ok(zeroflaw_clone(handle_, &made));
    return Inspector(made);
  }
  // Runs every engine, so that the first inspection is as fast as the rest.
  void warm_up(std::int32_t runs = 1) { require_ok(zeroflaw_warm_up(handle_, runs)); }
  // Takes over the products that the bundle has now, in all clones; see zeroflaw_reload.
  void reload() { require_ok(zeroflaw_reload(handle_)); }
  // Reads the pixels where they are, and not after the call.
  Inspection inspect(const Frame& frame) {
    const zeroflaw_frame given = detail::c_frame(frame);
    zeroflaw_inspection made = nullptr;
    require_ok(zeroflaw_inspect(handle_, &given, &made));
    return Inspection(made);
  }
  // Queues a copy of the frame and returns its ticket. Error with ZEROFLAW_QUEUE_FULL: poll first.
  std::uint64_t submit(const Frame& frame) {
    const zeroflaw_frame given = detail::c_frame(frame);
    std::uint64_t ticket = 0;
    require_ok(zeroflaw_submit(handle_, &given, &ticket));
    return ticket;
  }
  // The next result of submitted frames, in their order; empty if there is none in time.
  std::optional<Inspection> poll(double timeout_ms) {
    zeroflaw_inspection made = nullptr;
    const zeroflaw_status status = zeroflaw_poll(handle_, timeout_ms, &made);
    if (status == ZEROFLAW_TIMEOUT) return std::nullopt;
    require_ok(status);
    return Inspection(made);
  }
  // What it is made of, as JSON.
  std::string describe() const { return detail::text(zeroflaw_describe, handle_); }
  zeroflaw_health_report health() const {
    zeroflaw_health_report report{};
    report.struct_size = sizeof report;
    require_ok(zeroflaw_health(handle_, &report));
    return report;
  }
  zeroflaw_inspector handle() const noexcept { return handle_; }

 private:
  explicit Inspector(zeroflaw_inspector handle) noexcept : handle_(handle) {}
  zeroflaw_inspector handle_ = nullptr;
};

inline std::string_view version() { return zeroflaw_version(); }

}  // namespace zeroflaw
