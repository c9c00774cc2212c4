# find_package(trt_rt) defines the target trt_rt::runtime: the headers, and a library that stays linked although no
# symbol of it need be used, and is found where it lies now. Link it together with "${TORCH_LIBRARIES}".
get_filename_component(_trt_rt_folder "${CMAKE_CURRENT_LIST_DIR}/.." ABSOLUTE)
set(trt_rt_LIBRARY "${_trt_rt_folder}/lib/libtrt_rt_runtime.so")
if(NOT EXISTS "${trt_rt_LIBRARY}")
  set(trt_rt_FOUND FALSE)
  set(trt_rt_NOT_FOUND_MESSAGE "${trt_rt_LIBRARY} is not there. Build or install trt_rt again.")
  return()
endif()
if(NOT TARGET trt_rt::runtime)
  add_library(trt_rt::runtime INTERFACE IMPORTED)
  set_target_properties(trt_rt::runtime PROPERTIES
    INTERFACE_COMPILE_FEATURES cxx_std_17
    INTERFACE_INCLUDE_DIRECTORIES "${_trt_rt_folder}/include"
    INTERFACE_LINK_LIBRARIES "-Wl,--push-state,--no-as-needed,${trt_rt_LIBRARY},--pop-state"
    INTERFACE_LINK_OPTIONS "-Wl,-rpath,${_trt_rt_folder}/lib")
endif()
unset(_trt_rt_folder)
