/* Gives the library what it must refuse. Each line: name, status, decision, text.
 *
 *   bad_input BUNDLE PRODUCT DAMAGED_BUNDLE
 */
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zeroflaw/zeroflaw.h>

enum { WIDTH = 64, HEIGHT = 48, PADDING = 7, STRIDE = 3 * WIDTH + PADDING };

static zeroflaw_inspector inspector;
static zeroflaw_frame good;

static void report(const char *name, zeroflaw_status status) {
  printf("%s\t%d\t%d\t%s\n", name, (int)status, 0, zeroflaw_last_error());
}

/* An inspection that exists although something went wrong with it. */
static void report_outcome(const char *name, zeroflaw_inspection inspection) {
  zeroflaw_inspection_view view;
  view.struct_size = sizeof view;
  if (zeroflaw_view(inspection, &view) == ZEROFLAW_OK)
    printf("%s\t%d\t%d\t%s\n", name, (int)view.status, (int)view.decision, view.error);
  zeroflaw_release(inspection);
}

static void report_json(const char *name, zeroflaw_inspection inspection) {
  char text[65536];
  size_t needed = 0;
  zeroflaw_status status = zeroflaw_inspection_json(inspection, text, sizeof text, &needed);
  printf("%s\t%d\t0\t%s\n", name, (int)status, status == ZEROFLAW_OK ? text : "none");
}

static void inspect_changed(const char *name, zeroflaw_frame frame) {
  zeroflaw_inspection inspection = NULL;
  zeroflaw_status status = zeroflaw_inspect(inspector, &frame, &inspection);
  report(name, status);
  if (inspection != NULL) zeroflaw_release(inspection);
}

static void null_pointers(void) {
  zeroflaw_inspection inspection;
  zeroflaw_inspection_view view = {.struct_size = sizeof view};
  zeroflaw_health_report health = {.struct_size = sizeof health};
  zeroflaw_inspector other;
  size_t needed;
  report("null create", zeroflaw_create(NULL, NULL));
  report("null create_from_file", zeroflaw_create_from_file(NULL, NULL, &other));
  report("null clone", zeroflaw_clone(NULL, &other));
  report("null clone target", zeroflaw_clone(inspector, NULL));
  report("null destroy", zeroflaw_destroy(NULL));
  report("null warm_up", zeroflaw_warm_up(NULL, 1));
  report("null reload", zeroflaw_reload(NULL));
  report("null inspect", zeroflaw_inspect(NULL, &good, &inspection));
  report("null inspect frame", zeroflaw_inspect(inspector, NULL, &inspection));
  report("null inspect target", zeroflaw_inspect(inspector, &good, NULL));
  report("null submit", zeroflaw_submit(NULL, &good, NULL));
  report("null submit frame", zeroflaw_submit(inspector, NULL, NULL));
  report("null poll", zeroflaw_poll(NULL, 0, &inspection));
  report("null poll target", zeroflaw_poll(inspector, 0, NULL));
  report("null view", zeroflaw_view(NULL, &view));
  report("null release", zeroflaw_release(NULL));
  report("null json", zeroflaw_inspection_json(NULL, NULL, 0, &needed));
  const char *digest;
  report("null digest", zeroflaw_frame_sha256(NULL, &digest));
  report("null digest target", zeroflaw_frame_sha256((zeroflaw_inspection)(uintptr_t)1, NULL));
  report("null describe", zeroflaw_describe(NULL, NULL, 0, &needed));
  report("null describe size", zeroflaw_describe(inspector, NULL, 0, NULL));
  report("null health", zeroflaw_health(NULL, &health));
  report("null health report", zeroflaw_health(inspector, NULL));
  zeroflaw_frame frame = good;
  frame.pixels = NULL;
  inspect_changed("null pixels", frame);
}

static void struct_sizes(void) {
  zeroflaw_config config = ZEROFLAW_CONFIG_INIT;
  zeroflaw_inspector other;
  config.struct_size = 0;
  report("size config", zeroflaw_create(&config, &other));
  config.struct_size = sizeof config + 8;
  report("size config newer", zeroflaw_create(&config, &other));
  zeroflaw_frame frame = good;
  frame.struct_size = 3;
  inspect_changed("size frame", frame);
  zeroflaw_health_report health = {.struct_size = 1};
  report("size health", zeroflaw_health(inspector, &health));
  zeroflaw_inspection inspection;
  if (zeroflaw_inspect(inspector, &good, &inspection) != ZEROFLAW_OK) return;
  zeroflaw_inspection_view view = {.struct_size = sizeof view - 16};
  report("size view", zeroflaw_view(inspection, &view));
  zeroflaw_release(inspection);
}

/* What a program gives that was compiled against the first header of this ABI: the bytes behind its
 * structs are its own. Each field after the first header's end is set here, and must not be seen. */
static void first_header(void) {
  zeroflaw_config config = ZEROFLAW_CONFIG_INIT;
  config.struct_size = offsetof(zeroflaw_config, device);
  config.bundle = "/nowhere"; /* what is wrong if the device is not looked at */
  config.device = -1;
  zeroflaw_inspector none;
  report("first config", zeroflaw_create(&config, &none));
  const size_t first_frame = offsetof(zeroflaw_frame, camera_id);
  const size_t first_view = offsetof(zeroflaw_inspection_view, reason);
  const size_t first_health = offsetof(zeroflaw_health_report, held);
  zeroflaw_frame frame = good;
  frame.struct_size = first_frame;
  frame.camera_id = (const char *)(uintptr_t)1; /* a crash, if it is read */
  zeroflaw_inspection inspection;
  report("first frame", zeroflaw_inspect(inspector, &frame, &inspection));
  zeroflaw_inspection_view view;
  memset(&view, 0xAB, sizeof view);
  zeroflaw_inspection_view untouched = view;
  view.struct_size = first_view;
  report("first view", zeroflaw_view(inspection, &view));
  zeroflaw_health_report health;
  memset(&health, 0xAB, sizeof health);
  health.struct_size = first_health;
  report("first health", zeroflaw_health(inspector, &health));
  const int kept = memcmp((char *)&view + first_view, (char *)&untouched + first_view,
                          sizeof view - first_view) == 0 &&
                   health.held == untouched.monotonic_ns;
  const int filled = view.struct_size == first_view && view.frame_width == WIDTH &&
                     view.warning_count != untouched.warning_count &&
                     health.struct_size == first_health && health.inspected > 0;
  printf("first header\t0\t0\t%s, %s\n", filled ? "filled" : "not filled",
         kept ? "nothing behind it touched" : "written behind it");
  /* A header without reference banks. */
  view = untouched;
  view.struct_size = offsetof(zeroflaw_inspection_view, reference);
  report("second view", zeroflaw_view(inspection, &view));
  printf("second header\t0\t0\t%s, %s\n",
         strlen(view.parameters) == 64 ? "filled" : "not filled",
         view.reference == untouched.reference ? "nothing behind it touched" : "written behind it");
  /* A header without settings of products. */
  view = untouched;
  view.struct_size = offsetof(zeroflaw_inspection_view, decision_score);
  report("third view", zeroflaw_view(inspection, &view));
  printf("third header\t0\t0\t%s, %s\n",
         view.reference != untouched.reference ? "filled" : "not filled",
         memcmp((char *)&view + view.struct_size, (char *)&untouched + view.struct_size,
                sizeof view - view.struct_size) == 0
             ? "nothing behind it touched"
             : "written behind it");
  zeroflaw_release(inspection);
}

/* Nothing to see in the frame: inspected, and held. */
static void held(void) {
  static uint8_t black[HEIGHT * WIDTH];
  zeroflaw_frame frame = good;
  frame.pixels = black;
  frame.pixel_format = ZEROFLAW_MONO8;
  frame.stride = WIDTH;
  frame.frame_id = "f";
  frame.part_id = "p";
  frame.camera_id = "c";
  zeroflaw_inspection inspection = NULL;
  report("held call", zeroflaw_inspect(inspector, &frame, &inspection));
  zeroflaw_inspection_view view = {.struct_size = sizeof view};
  zeroflaw_view(inspection, &view);
  printf("held names\t0\t%d\t%s %s %s %s %zu %zu\n", (int)view.decision, view.reason,
         view.frame_id, view.part_id, view.camera_id, strlen(view.id), strlen(view.parameters));
  report_json("held json", inspection);
  report_outcome("held", inspection);
}

static void bad_frames(void) {
  zeroflaw_frame frame = good;
  frame.stride = 3 * WIDTH - 1;
  inspect_changed("frame stride", frame);
  frame = good;
  frame.stride = SIZE_MAX / 2;
  inspect_changed("frame huge stride", frame);
  frame = good;
  frame.pixel_format = 99;
  inspect_changed("frame format", frame);
  frame.pixel_format = 0;
  inspect_changed("frame no format", frame);
  frame = good;
  frame.width = 0;
  inspect_changed("frame empty", frame);
  frame = good;
  frame.pixel_format = ZEROFLAW_MONO16;
  inspect_changed("frame odd stride", frame);
  frame = good;
  frame.white_level = -1;
  inspect_changed("frame white level", frame);
  frame = good;
  frame.deadline_ms = NAN;
  inspect_changed("frame deadline", frame);
  frame = good;
  frame.product = "\xff\xfe";
  inspect_changed("frame product bytes", frame);
  frame.product = "no such thing";
  inspect_changed("frame product", frame);
  frame = good;
  frame.deadline_ms = 1e-6;
  zeroflaw_inspection inspection = NULL;
  report("late call", zeroflaw_inspect(inspector, &frame, &inspection));
  report_json("late json", inspection);
  report_outcome("late", inspection);
}

static void bad_handles(void) {
  zeroflaw_inspector other = NULL;
  zeroflaw_inspection inspection = NULL;
  zeroflaw_inspection_view view = {.struct_size = sizeof view};
  size_t needed;
  report("handle garbage", zeroflaw_inspect((zeroflaw_inspector)(uintptr_t)0xdeadbeef, &good,
                                            &inspection));
  report("handle clone", zeroflaw_clone(inspector, &other));
  report("handle destroy", zeroflaw_destroy(other));
  report("handle destroyed twice", zeroflaw_destroy(other));
  report("handle destroyed inspect", zeroflaw_inspect(other, &good, &inspection));
  report("handle destroyed reload", zeroflaw_reload(other));
  report("handle destroyed poll", zeroflaw_poll(other, 0, &inspection));
  report("handle destroyed describe", zeroflaw_describe(other, NULL, 0, &needed));
  if (zeroflaw_inspect(inspector, &good, &inspection) != ZEROFLAW_OK) return;
  report("handle of other kind", zeroflaw_warm_up((zeroflaw_inspector)(void *)inspection, 1));
  report("handle release", zeroflaw_release(inspection));
  report("handle released twice", zeroflaw_release(inspection));
  const char *digest;
  report("handle released digest", zeroflaw_frame_sha256(inspection, &digest));
  report("handle released view", zeroflaw_view(inspection, &view));
}

static void bad_configurations(const char *damaged) {
  zeroflaw_config config = ZEROFLAW_CONFIG_INIT;
  zeroflaw_inspector other;
  config.bundle = "/nowhere";
  report("config bundle missing", zeroflaw_create(&config, &other));
  config.bundle = damaged;
  report("config bundle damaged", zeroflaw_create(&config, &other));
  config.bundle = NULL;
  config.backend = "abacus";
  report("config backend", zeroflaw_create(&config, &other));
  config.backend = NULL;
  config.threads = -1;
  report("config threads", zeroflaw_create(&config, &other));
  config.threads = 0;
  config.device = 1;
  report("config device", zeroflaw_create(&config, &other));
  config.device = 0;
  config.when_full = "panic";
  report("config when_full", zeroflaw_create(&config, &other));
  report("config file missing", zeroflaw_create_from_file("/nowhere.toml", NULL, &other));
  config.when_full = NULL;
  config.python_home = "/usr";
  report("config other python", zeroflaw_create(&config, &other));
  report("reload", zeroflaw_reload(inspector));
  report("warm up", zeroflaw_warm_up(inspector, 0));
  report("poll nothing", zeroflaw_poll(inspector, 1, &(zeroflaw_inspection){0}));
  report("poll negative", zeroflaw_poll(inspector, -1, &(zeroflaw_inspection){0}));
  char small[8];
  size_t needed;
  report("buffer small", zeroflaw_describe(inspector, small, sizeof small, &needed));
}

static void queue(void) {
  zeroflaw_inspector queued;
  zeroflaw_clone(inspector, &queued);
  zeroflaw_status status = ZEROFLAW_OK;
  for (int i = 0; i < 1000 && status == ZEROFLAW_OK; ++i)
    status = zeroflaw_submit(queued, &good, NULL);
  report("queue full", status);
  zeroflaw_inspection inspection = NULL;
  while (zeroflaw_poll(queued, 0, &inspection) == ZEROFLAW_OK) zeroflaw_release(inspection);
  zeroflaw_destroy(queued);

  zeroflaw_clone(inspector, &queued);
  zeroflaw_frame frame = good;
  frame.stride = 1;
  report("queue bad stride", zeroflaw_submit(queued, &frame, NULL));
  frame = good;
  frame.product = "no such thing";
  zeroflaw_submit(queued, &frame, NULL);
  if (zeroflaw_poll(queued, 60000, &inspection) == ZEROFLAW_OK) {
    report_json("queue product json", inspection);
    report_outcome("queue product", inspection);
  }
  frame = good;
  frame.deadline_ms = 1e-6;
  zeroflaw_submit(queued, &frame, NULL);
  if (zeroflaw_poll(queued, 60000, &inspection) == ZEROFLAW_OK)
    report_outcome("queue late", inspection);
  zeroflaw_destroy(queued);
}

static void *on_new_thread(void *argument) {
  (void)argument;
  zeroflaw_inspection inspection = NULL;
  report("thread good", zeroflaw_inspect(inspector, &good, &inspection));
  zeroflaw_release(inspection);
  zeroflaw_frame frame = good;
  frame.stride = 1;
  inspect_changed("thread bad", frame);
  return NULL;
}

static void threads(void) {
  report("thread main", zeroflaw_destroy(NULL));
  pthread_t thread;
  pthread_create(&thread, NULL, on_new_thread, NULL);
  pthread_join(thread, NULL);
  /* The other thread's failure must not have changed this thread's text. */
  report("thread main after", ZEROFLAW_OK);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  setvbuf(stdout, NULL, _IOLBF, 0);
  good = (zeroflaw_frame)ZEROFLAW_FRAME_INIT;
  struct sigaction before, after;
  sigaction(SIGINT, NULL, &before);
  report("before create destroy", zeroflaw_destroy((zeroflaw_inspector)(uintptr_t)1));
  zeroflaw_config config = ZEROFLAW_CONFIG_INIT;
  config.python_home = "/nowhere";
  report("before create environment", zeroflaw_create(&config, &inspector));
  config.python_home = NULL; /* a wrong environment can be corrected in the same process */
  config.bundle = argv[1];
  zeroflaw_status status = zeroflaw_create(&config, &inspector);
  report("create", status);
  if (status != ZEROFLAW_OK) return 1;
  /* To the last byte that is a pixel: memory checkers see a read beyond it. */
  size_t size = STRIDE * (HEIGHT - 1) + 3 * WIDTH;
  uint8_t *pixels = malloc(size);
  for (size_t i = 0; i < size; ++i) pixels[i] = (uint8_t)(i * 2654435761u >> 13);
  good.pixels = pixels;
  good.width = WIDTH;
  good.height = HEIGHT;
  good.stride = STRIDE;
  good.pixel_format = ZEROFLAW_BGR8;
  good.product = argv[2];
  inspect_changed("good", good);
  null_pointers();
  struct_sizes();
  first_header();
  held();
  bad_frames();
  bad_handles();
  bad_configurations(argv[3]);
  queue();
  threads();
  inspect_changed("good at the end", good);
  sigaction(SIGINT, NULL, &after);
  printf("process\t0\t0\tlocale %s, SIGINT %s\n", setlocale(LC_ALL, NULL),
         after.sa_handler == before.sa_handler ? "unchanged" : "changed");
  zeroflaw_destroy(inspector);
  free(pixels);
  return 0;
}
