/* Forks while threads are in calls, and calls everything in the child. Each line: name, status,
 * text; a child that hangs is ended by its alarm, and its line says so.
 *
 *   forked BUNDLE PRODUCT [BACKEND]
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zeroflaw/zeroflaw.h>

enum { SIDE = 64, WATCHDOG_S = 20, FORKS = 5 };

static zeroflaw_config config = ZEROFLAW_CONFIG_INIT;
static zeroflaw_inspector inspector;
static zeroflaw_inspection inspection;
static zeroflaw_frame frame = ZEROFLAW_FRAME_INIT;
static uint8_t pixels[SIDE * SIDE];
static atomic_int finished;

static void report(const char *name, zeroflaw_status status) {
  printf("%s\t%d\t%s\n", name, (int)status, zeroflaw_last_error());
  fflush(stdout);
}

static void call_everything(void) {
  zeroflaw_inspector other = NULL;
  zeroflaw_inspection made = NULL;
  zeroflaw_inspection_view view = {.struct_size = sizeof view};
  zeroflaw_health_report health = {.struct_size = sizeof health};
  size_t needed = 0;
  const char *digest = NULL;
  report("create", zeroflaw_create(&config, &other));
  report("create_from_file", zeroflaw_create_from_file("/nowhere", NULL, &other));
  report("clone", zeroflaw_clone(inspector, &other));
  report("warm_up", zeroflaw_warm_up(inspector, 1));
  report("reload", zeroflaw_reload(inspector));
  report("inspect", zeroflaw_inspect(inspector, &frame, &made));
  report("submit", zeroflaw_submit(inspector, &frame, NULL));
  report("poll", zeroflaw_poll(inspector, 1e9, &made));
  report("view", zeroflaw_view(inspection, &view));
  report("inspection_json", zeroflaw_inspection_json(inspection, NULL, 0, &needed));
  report("frame_sha256", zeroflaw_frame_sha256(inspection, &digest));
  report("describe", zeroflaw_describe(inspector, NULL, 0, &needed));
  report("health", zeroflaw_health(inspector, &health));
  report("release", zeroflaw_release(inspection));
  report("destroy", zeroflaw_destroy(inspector));
  printf("version\t%d\t%s\n", 0, zeroflaw_version());
}

static void *call_elsewhere(void *nothing) {
  call_everything();
  return nothing;
}

/* Every child ends as a program does: with its own `exit`, and what that calls. */
static void in_child(const char *name, void (*act)(void)) {
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(WATCHDOG_S);
    act();
    fflush(stdout);
    exit(7);
  }
  int status = 0;
  waitpid(child, &status, 0);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  printf("%s\t%d\t\n", name, code);
  fflush(stdout);
}

static void nothing(void) {}

static void call_from_new_thread(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, call_elsewhere, NULL);
  pthread_join(thread, NULL);
}

static void create_in_child(void) {
  zeroflaw_inspector other = NULL;
  report("create in a fresh child", zeroflaw_create(&config, &other));
  report("inspect in a fresh child", zeroflaw_inspect(other, &frame, &inspection));
  report("destroy in a fresh child", zeroflaw_destroy(other));
}

static void create_during_start(void) {
  zeroflaw_inspector other = NULL;
  const zeroflaw_status status = zeroflaw_create(&config, &other);
  /* Before the start has begun in the parent, the child is one like any other. */
  if (status != ZEROFLAW_OK && status != ZEROFLAW_ENVIRONMENT) report("during start", status);
}

static void *start(void *nothing) {
  report("create in the parent", zeroflaw_create(&config, &inspector));
  return nothing;
}

static void *inspect_all_the_while(void *nothing) {
  while (!finished) {
    zeroflaw_inspection made = NULL;
    if (zeroflaw_inspect(inspector, &frame, &made) != ZEROFLAW_OK) abort();
    zeroflaw_release(made);
  }
  return nothing;
}

static void *fork_elsewhere(void *nothing) {
  in_child("child of another thread", call_everything);
  return nothing;
}

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  for (size_t i = 0; i < sizeof pixels; ++i) pixels[i] = (uint8_t)(i * i >> 5);
  config.bundle = argv[1];
  config.backend = argc > 3 ? argv[3] : NULL;
  frame.pixels = pixels;
  frame.width = frame.height = frame.stride = SIDE;
  frame.pixel_format = ZEROFLAW_MONO8;
  frame.product = argv[2];

  in_child("fresh child", create_in_child);
  pthread_t thread, other;
  pthread_create(&thread, NULL, start, NULL);
  usleep(20000);
  in_child("child during start", create_during_start);
  pthread_join(thread, NULL);
  report("inspect in the parent", zeroflaw_inspect(inspector, &frame, &inspection));

  in_child("child", call_everything);
  in_child("child without calls", nothing);
  in_child("child with a thread", call_from_new_thread);
  pthread_create(&thread, NULL, inspect_all_the_while, NULL);
  for (int i = 0; i < FORKS; ++i) {
    usleep(7000);
    in_child("child during calls", call_everything);
  }
  pthread_create(&other, NULL, fork_elsewhere, NULL);
  pthread_join(other, NULL);
  finished = 1;
  pthread_join(thread, NULL);
  report("release in the parent", zeroflaw_release(inspection));
  report("inspect again", zeroflaw_inspect(inspector, &frame, &inspection));
  report("destroy in the parent", zeroflaw_destroy(inspector));
  return 0;
}
