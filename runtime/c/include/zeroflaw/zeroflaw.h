/*
 * zeroflaw: inspect frames from C, and from everything that can call C.
 *
 * The library runs zeroflaw's Python runtime inside the calling process, so that C, C++ and Python
 * give the same results, bit for bit. docs/embedding.md has a complete first program.
 *
 * Conventions
 * - Every function returns a status; ZEROFLAW_OK is 0. zeroflaw_last_error() then says what was
 *   wrong and what to do about it, for the calling thread.
 * - Every struct that may grow begins with struct_size, which the caller sets to sizeof the struct
 *   (the ..._INIT macros do). Fields are only ever added at the end, and programs that were
 *   compiled against an older header of this ABI keep working.
 * - Handles are numbers in a table, not addresses: one that was destroyed is refused, never used.
 * - Text is UTF-8 and ends with a zero byte.
 * - Any thread may call any function at any time. Calls on one inspector wait for each other;
 *   clones run side by side and share the weights.
 * - Nothing is thrown, nothing is printed, no signal handler is installed, and neither the current
 *   directory nor the locale is changed.
 */
#ifndef ZEROFLAW_H
#define ZEROFLAW_H

#include <stddef.h>
#include <stdint.h>

#if defined(ZEROFLAW_BUILDING)
#define ZEROFLAW_API __attribute__((visibility("default")))
#else
#define ZEROFLAW_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this ABI: part of the SONAME, raised only by an incompatible change. */
#define ZEROFLAW_ABI_VERSION 1

typedef struct zeroflaw_inspector_handle *zeroflaw_inspector;
typedef struct zeroflaw_inspection_handle *zeroflaw_inspection;

typedef int32_t zeroflaw_status;
enum {
  ZEROFLAW_OK = 0,
  ZEROFLAW_INVALID_ARGUMENT = 1, /* a null pointer, or a value out of its range */
  ZEROFLAW_STRUCT_SIZE = 2,      /* struct_size is not that of a version this library knows */
  ZEROFLAW_INVALID_HANDLE = 3,   /* destroyed, released, or never existed */
  ZEROFLAW_ENVIRONMENT = 4,      /* the Python environment is missing, incomplete or unsuitable,
                                    or this process is a fork of the one that runs it */
  ZEROFLAW_CONFIGURATION = 5,    /* a configuration file or value cannot be used */
  ZEROFLAW_BUNDLE = 6,           /* the bundle is missing, damaged, or of another schema */
  ZEROFLAW_BACKEND = 7,          /* the backend is not available on this machine */
  ZEROFLAW_ENGINE = 8,           /* an engine cannot be loaded or run */
  ZEROFLAW_FRAME = 9,            /* the frame cannot be inspected */
  ZEROFLAW_PRODUCT = 10,         /* the bundle does not know the product */
  ZEROFLAW_QUEUE_FULL = 11,      /* nothing was submitted: poll first */
  ZEROFLAW_TIMEOUT = 12,         /* no result arrived within the time given */
  ZEROFLAW_DEADLINE_MISSED = 13, /* only in zeroflaw_view: the result came too late */
  ZEROFLAW_DROPPED = 14,         /* only in zeroflaw_view: the frame was not inspected */
  ZEROFLAW_SHUTTING_DOWN = 15,   /* the process is exiting */
  ZEROFLAW_BUFFER_TOO_SMALL = 16,
  ZEROFLAW_INTERNAL = 17, /* a defect of zeroflaw: please report the text */
  ZEROFLAW_HELD = 18      /* only in zeroflaw_view: inspected, and nothing that could be judged */
};

/* What to do with the part. Zeroed memory never means "accept". */
typedef int32_t zeroflaw_decision;
enum {
  ZEROFLAW_INVALID = 0, /* no decision: bad, late, dropped or held frame. Hold the part. */
  ZEROFLAW_ACCEPT = 1,
  ZEROFLAW_REJECT = 2
};

typedef int32_t zeroflaw_pixel_format;
enum {
  ZEROFLAW_MONO8 = 1,
  ZEROFLAW_RGB8 = 2,
  ZEROFLAW_BGR8 = 3,
  ZEROFLAW_RGBA8 = 4, /* alpha is dropped */
  ZEROFLAW_BGRA8 = 5,
  ZEROFLAW_MONO16 = 6 /* in the machine's byte order; see white_level */
};

/* What an inspector is made of. Null and zero mean the default. */
typedef struct zeroflaw_config {
  size_t struct_size;
  const char *python_home;      /* environment with zeroflaw; default: $ZEROFLAW_PYTHON_HOME */
  const char *bundle;           /* directory, or one that ships: "mini" (default), "mini_clipsam" */
  const char *backend;          /* "onnxruntime" (default), "openvino", "auto", ... */
  const char *precision;        /* "fp32", "bf16", "fp16"; default: that of the backend */
  const char *model_cache;      /* directory for backends that compile at load; default: none */
  const char *encoder_schedule; /* "side_by_side" (default) or "clip_first" */
  uint64_t max_frame_pixels;    /* larger frames are refused; default 100,000,000 */
  int32_t threads;              /* CPU threads of each engine; default: every core */
  int32_t queue_size;           /* submitted frames that may wait; default 8 */
  const char *when_full;        /* "refuse" (default) the new frame, or "drop_oldest" */
  int32_t device;               /* number of the GPU, as CUDA counts; CPU backends take 0 alone */
} zeroflaw_config;
#define ZEROFLAW_CONFIG_INIT {sizeof(zeroflaw_config), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* A frame, and how it is to be inspected. */
typedef struct zeroflaw_frame {
  size_t struct_size;
  const void *pixels;                 /* of the top left pixel */
  size_t stride;                      /* bytes from one row to the next, padding included */
  uint32_t width;                     /* px */
  uint32_t height;                    /* px */
  zeroflaw_pixel_format pixel_format; /* never guessed */
  float white_level;                  /* value that counts as white; 0: the format's largest */
  const char *product;                /* null: the only product of the bundle */
  const char *frame_id;               /* echoed; null or "": none */
  const char *part_id;                /* echoed; null or "": none */
  double deadline_ms;                 /* from this call to the result; 0: none */
  const char *camera_id;              /* echoed; null or "": none */
} zeroflaw_frame;
#define ZEROFLAW_FRAME_INIT {sizeof(zeroflaw_frame), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* These three are values that never grow. */
typedef struct zeroflaw_point {
  int32_t x; /* frame pixels; whole numbers are pixel centres */
  int32_t y;
} zeroflaw_point;

typedef struct zeroflaw_polygon {
  const zeroflaw_point *points;
  size_t point_count;
} zeroflaw_polygon;

typedef struct zeroflaw_timing {
  const char *stage;
  double milliseconds;
} zeroflaw_timing;

/* One connected component of the mask, in frame pixels. The library sets struct_size. */
typedef struct zeroflaw_region {
  size_t struct_size;
  int32_t x; /* bounding box */
  int32_t y;
  int32_t width;
  int32_t height;
  int64_t area; /* pixels */
  double centroid_x;
  double centroid_y;
  double peak_score;         /* highest value of the score map in it */
  zeroflaw_polygon polygon;  /* outer boundary, on pixels of the region */
  const zeroflaw_polygon *holes; /* pixels of the region around each hole */
  size_t hole_count;
  const char *const *zones; /* names of the product's zones to include that it touches */
  size_t zone_count;
  const char *severity;     /* the worst of theirs: "minor", "major", "critical"; "" if none */
  double area_mm2;          /* 0 if the product's settings have no scale */
} zeroflaw_region;

/* What zeroflaw_view shows of an inspection; pointers are valid until it is released. */
typedef struct zeroflaw_inspection_view {
  size_t struct_size;
  zeroflaw_status status;     /* ZEROFLAW_OK, or why there is no decision */
  zeroflaw_decision decision; /* ZEROFLAW_INVALID unless status is ZEROFLAW_OK */
  int32_t deadline_missed;    /* 1 if the result came after the frame's deadline */
  uint32_t frame_width;       /* px; 0 if the frame was not inspected, as all that follows */
  uint32_t frame_height;
  uint32_t map_width;
  uint32_t map_height;
  uint64_t ticket;       /* that zeroflaw_submit gave; 0 from zeroflaw_inspect */
  const char *error;     /* cause and remedy; "" if status is ZEROFLAW_OK */
  const char *frame_id;  /* as given with the frame */
  const char *part_id;   /* as given with the frame */
  const char *product;   /* that it was inspected as */
  const char *outcome;   /* "ok", "no_region" or "stage_N_empty": how the mask came about */
  const char *bundle;    /* digest of engines and weights */
  const char *backend;   /* what ran them */
  double score;          /* of the image, in [0, 1] */
  double threshold;      /* a decision score at or above it is a reject */
  double queue_ms;       /* time the frame waited before its inspection began */
  const uint8_t *mask;   /* 1 where there is a defect, else 0; frame_height rows */
  size_t mask_stride;    /* bytes from row to row */
  const float *anomaly_map; /* CLIP's map in [0, 1], fused with that of the product's reference
                               bank if it has one; map_height rows of map_width, packed */
  const float *score_map;   /* what the refiner made of map and masks, likewise */
  const zeroflaw_region *const *regions; /* largest first */
  size_t region_count;
  const zeroflaw_timing *timings;
  size_t timing_count;
  const char *const *warnings; /* what a reader of the result must know */
  size_t warning_count;
  const char *reason;          /* of decision or hold: "below_threshold" (accept),
                                  "reaches_threshold", "rule" (reject), "low_contrast", "clipped",
                                  "dark", "contradiction", "wrong_frame_size", "misaligned",
                                  "zone_out_of_view", "failed", "late" or "dropped" */
  const char *reason_text;     /* the same as a sentence */
  const char *id;              /* of this frame: 32 hexadecimal digits, never the same twice */
  const char *time;            /* when it was handed over: UTC, "2026-01-31T08:00:00.000000Z" */
  uint64_t monotonic_ns;       /* the same on the clock CLOCK_MONOTONIC, for intervals */
  const char *camera_id;       /* as given with the frame */
  const char *software;        /* version of zeroflaw */
  const char *text_embeddings; /* digest of the product's; "" if not inspected, as what follows */
  const char *calibration;     /* digest of the product's threshold and its origin; "" if none */
  const char *parameters;      /* digest of the method's parameters */
  const char *reference;       /* digest of the product's reference bank; "" if none */
  double decision_score;       /* what the product's rules make of regions and score, in [0, 1];
                                  `score` if it has none */
  const char *rule;            /* that rejected the frame; "" if none did */
  const char *settings;        /* digest of the product's settings; "" if none */
  uint32_t tile_rows;          /* tiles that the encoders saw the frame in; 0: as a whole */
  uint32_t tile_columns;
  uint32_t tiles_run;          /* of them, those that CLIP was run on */
  int32_t aligned;             /* 1 if the part was sought in the frame; else what follows is 0 */
  double shift_x;              /* of the frame's middle against the reference photo, px */
  double shift_y;
  double rotation;             /* degrees, counter-clockwise */
  double correlation;          /* with the reference photo, in [-1, 1] */
} zeroflaw_inspection_view;

typedef int32_t zeroflaw_state;
enum {
  ZEROFLAW_STATE_INITIALIZED = 1, /* loaded, not warmed up */
  ZEROFLAW_STATE_READY = 2,       /* warmed up, or has inspected */
  ZEROFLAW_STATE_FAILING = 3      /* an engine failed at the latest inspection */
};

typedef struct zeroflaw_health_report {
  size_t struct_size;
  zeroflaw_state state;
  int32_t queue_size; /* submitted frames that may wait */
  int32_t queued;     /* submitted frames that wait */
  int32_t running;    /* inspections under way */
  int32_t results;    /* results that wait for zeroflaw_poll */
  uint64_t heartbeat; /* inspections that have ended, well or not; a watchdog worries if it
                         stands still while `running` is not 0 */
  uint64_t inspected; /* inspections that gave a result in time */
  uint64_t failed;    /* inspections that ended in an error */
  uint64_t late;      /* frames whose deadline was missed */
  uint64_t dropped;   /* submitted frames that were never looked at */
  char last_error[512]; /* of the latest failed inspection; "" if none failed */
  uint64_t held;        /* of `inspected`, frames that showed nothing that could be judged */
} zeroflaw_health_report;

/* The library's version, as "1.2.3". */
ZEROFLAW_API const char *zeroflaw_version(void);

/* What a status means, in a few words. Never null. */
ZEROFLAW_API const char *zeroflaw_status_text(zeroflaw_status status);

/* Cause and remedy of the calling thread's latest failure; "" if its latest call succeeded.
 * Valid until the thread's next call. Never null. */
ZEROFLAW_API const char *zeroflaw_last_error(void);

/* Verifies a bundle and loads its engines; with config null, the demonstration model's.
 * The first call of the process starts Python, and fixes the environment. */
ZEROFLAW_API zeroflaw_status zeroflaw_create(const zeroflaw_config *config,
                                             zeroflaw_inspector *inspector);

/* The same from a TOML file with the fields of zeroflaw_config (but for python_home). */
ZEROFLAW_API zeroflaw_status zeroflaw_create_from_file(const char *config_file,
                                                       const char *python_home,
                                                       zeroflaw_inspector *inspector);

/* Another inspector with the same weights and a queue of its own, to be destroyed by itself. */
ZEROFLAW_API zeroflaw_status zeroflaw_clone(zeroflaw_inspector inspector,
                                            zeroflaw_inspector *clone);

/* Waits for the calls that are under way, then releases what no clone shares. Frames that wait
 * are dropped. Inspections stay valid. */
ZEROFLAW_API zeroflaw_status zeroflaw_destroy(zeroflaw_inspector inspector);

/* Runs every engine `runs` times (>= 1), so that the first inspection is as fast as the rest. */
ZEROFLAW_API zeroflaw_status zeroflaw_warm_up(zeroflaw_inspector inspector, int32_t runs);

/* Takes over the products that the bundle has now: learned, calibrated, added or forgotten since it
 * was loaded. Applies to all clones. Frames that begin after it are judged by them; those under way
 * end with what they began with, and nothing waits for it. ZEROFLAW_BUNDLE if the bundle has other
 * models by now. After a failure everything is as it was. */
ZEROFLAW_API zeroflaw_status zeroflaw_reload(zeroflaw_inspector inspector);

/* Inspects a frame. The pixels are read where they are, and not after the call.
 * The call returns ZEROFLAW_OK for every frame that was inspected: what the decision is, and
 * whether there is one, is in zeroflaw_view. A result that came too late has the status
 * ZEROFLAW_DEADLINE_MISSED there and no decision; a frame without information, that does not fit the
 * product's settings, or whose mask contradicts its score where the bundle says so, has
 * ZEROFLAW_HELD and no decision. */
ZEROFLAW_API zeroflaw_status zeroflaw_inspect(zeroflaw_inspector inspector,
                                              const zeroflaw_frame *frame,
                                              zeroflaw_inspection *inspection);

/* Queues a frame and returns at once; its pixels are copied. `ticket` (1, 2, ...) may be null.
 * Submitted frames are inspected beside calls of zeroflaw_inspect. */
ZEROFLAW_API zeroflaw_status zeroflaw_submit(zeroflaw_inspector inspector,
                                             const zeroflaw_frame *frame, uint64_t *ticket);

/* The next result of submitted frames, in their order; waits at most `timeout_ms` (>= 0).
 * Frames that failed, came too late, were dropped or held come too: without a decision, with a
 * reason. */
ZEROFLAW_API zeroflaw_status zeroflaw_poll(zeroflaw_inspector inspector, double timeout_ms,
                                           zeroflaw_inspection *inspection);

/* Shows an inspection. Set view->struct_size first. */
ZEROFLAW_API zeroflaw_status zeroflaw_view(zeroflaw_inspection inspection,
                                           zeroflaw_inspection_view *view);

/* Releases an inspection and everything that its views point to. */
ZEROFLAW_API zeroflaw_status zeroflaw_release(zeroflaw_inspection inspection);

/* The frame's record as JSON (docs/inspection.schema.json), version 4; of a frame that failed, came
 * too late, was dropped or held, it says "hold".
 * `needed` gets the size with the final zero byte; `buffer` may be null to ask for it alone. */
ZEROFLAW_API zeroflaw_status zeroflaw_inspection_json(zeroflaw_inspection inspection, char *buffer,
                                                      size_t capacity, size_t *needed);

/* SHA-256 of the frame as it was inspected (RGB, 8 bits a channel, row by row), 64 hexadecimal
 * digits; "" if it was not inspected. Valid until the inspection is released. It is computed at the
 * first call, so that no decision waits for it. */
ZEROFLAW_API zeroflaw_status zeroflaw_frame_sha256(zeroflaw_inspection inspection,
                                                   const char **digest);

/* What the inspector is made of as JSON: bundle and its digest, products and the digests of their
 * reference banks, backend, versions. */
ZEROFLAW_API zeroflaw_status zeroflaw_describe(zeroflaw_inspector inspector, char *buffer,
                                               size_t capacity, size_t *needed);

/* How the inspector fares; never waits for an inspection. Set report->struct_size first. */
ZEROFLAW_API zeroflaw_status zeroflaw_health(zeroflaw_inspector inspector,
                                             zeroflaw_health_report *report);

#ifdef __cplusplus
}
#endif

#endif
