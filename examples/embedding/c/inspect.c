/* Inspects PGM and PPM files and prints decisions and regions.
 *
 *   inspect BUNDLE PRODUCT FILE...
 *
 * Exit code: 0 all accepted, 4 one rejected, 3 one could not be decided, 1 nothing could be done,
 * 2 wrong usage. A part that was not seen, or not well enough to judge it, is never "good".
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <zeroflaw/zeroflaw.h>

#include "pnm.h"

enum { ACCEPTED = 0, UNUSABLE = 1, USAGE = 2, UNDECIDED = 3, REJECTED = 4 };

static void print_polygon(const char *name, const zeroflaw_polygon *polygon) {
  printf("    %s", name);
  for (size_t i = 0; i < polygon->point_count; ++i)
    printf(" %" PRId32 ",%" PRId32, polygon->points[i].x, polygon->points[i].y);
  printf("\n");
}

static void print_regions(const zeroflaw_inspection_view *view) {
  for (size_t i = 0; i < view->region_count; ++i) {
    const zeroflaw_region *region = view->regions[i];
    printf("  region %" PRId32 ",%" PRId32 " %" PRId32 "x%" PRId32 " area %" PRId64
           " peak %.3f\n",
           region->x, region->y, region->width, region->height, region->area, region->peak_score);
    print_polygon("outline", &region->polygon);
    for (size_t hole = 0; hole < region->hole_count; ++hole)
      print_polygon("hole", &region->holes[hole]);
  }
}

static int inspect_file(zeroflaw_inspector inspector, const char *product, const char *path) {
  pnm_image image;
  const char *wrong = read_pnm(path, &image);
  if (wrong != NULL) {
    fprintf(stderr, "%s %s\n", path, wrong);
    return UNDECIDED;
  }
  zeroflaw_frame frame = ZEROFLAW_FRAME_INIT;
  frame.pixels = image.pixels;
  frame.width = image.width;
  frame.height = image.height;
  frame.stride = (size_t)image.width * image.channels;
  frame.pixel_format = image.channels == 3 ? ZEROFLAW_RGB8 : ZEROFLAW_MONO8;
  frame.product = product;
  frame.frame_id = path;
  zeroflaw_inspection inspection;
  zeroflaw_status status = zeroflaw_inspect(inspector, &frame, &inspection);
  free(image.pixels);
  if (status != ZEROFLAW_OK) {
    fprintf(stderr, "%s: %s: %s\n", path, zeroflaw_status_text(status), zeroflaw_last_error());
    return UNDECIDED;
  }
  int code = UNDECIDED;
  zeroflaw_inspection_view view;
  view.struct_size = sizeof view;
  status = zeroflaw_view(inspection, &view);
  if (status != ZEROFLAW_OK) {
    fprintf(stderr, "%s: %s: %s\n", path, zeroflaw_status_text(status), zeroflaw_last_error());
  } else if (view.decision == ZEROFLAW_INVALID) {
    fprintf(stderr, "%s: %s: %s\n", path, zeroflaw_status_text(view.status), view.error);
  } else {
    code = view.decision == ZEROFLAW_ACCEPT ? ACCEPTED : REJECTED;
    printf("%s %s score %.6f threshold %.6f\n", view.frame_id,
           code == ACCEPTED ? "accept" : "reject", view.decision_score, view.threshold);
    print_regions(&view);
  }
  zeroflaw_release(inspection);
  return code;
}

int main(int argc, char **argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: %s BUNDLE PRODUCT FILE...\n", argv[0]);
    return USAGE;
  }
  zeroflaw_config config = ZEROFLAW_CONFIG_INIT;
  config.bundle = argv[1];
  zeroflaw_inspector inspector;
  zeroflaw_status status = zeroflaw_create(&config, &inspector);
  if (status == ZEROFLAW_OK) status = zeroflaw_warm_up(inspector, 1);
  if (status != ZEROFLAW_OK) {
    fprintf(stderr, "%s: %s\n", zeroflaw_status_text(status), zeroflaw_last_error());
    return UNUSABLE;
  }
  int worst = ACCEPTED;
  for (int i = 3; i < argc; ++i) {
    int code = inspect_file(inspector, argv[2], argv[i]);
    /* A part that could not be decided weighs less than one that is known to be bad. */
    if (code > worst) worst = code;
  }
  zeroflaw_destroy(inspector);
  return worst;
}
